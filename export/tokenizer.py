"""Tokenization, the same for training, calibration, parity and serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.symbols import Speller, Unknown, unknown_tokens
from export.words import WordCache, tokenizes_by_word

# Longer than any token of natural text: cutting texts to this many characters for each token of `max_length` does not
# change the ids, and bounds the time for which an adversarial text blocks the event loop.
MAX_CHARACTERS_A_TOKEN = 40


Ids = tuple[int, ...]


class Encoded(NamedTuple):
    """One text: its token ids, special tokens included, and whether it was truncated to `max_length`."""

    ids: Ids
    truncated: bool


class Tokens(NamedTuple):
    """The tokens of one text, with their places in it."""

    ids: Ids
    """as in Encoded"""
    words: Sequence[int | None]
    """for each token, the number of the tokenizer's own word that it is a part of; None for a special token"""
    spans: Sequence[tuple[int, int]]
    """for each token, its first character (a code point of the text as given) and the one after its last"""


class TextEncoder:
    """Wraps `tokenizers.Tokenizer` with truncation at `max_length` tokens and no padding.

    `symbols` are spelled out before (export/symbols.py).
    """

    def __init__(self, tokenizer: Tokenizer | Path, max_length: int, symbols: Mapping[str, str] | None = None):
        self._tokenizer = Tokenizer.from_file(str(tokenizer)) if isinstance(tokenizer, Path) else tokenizer
        self.symbols = symbols or {}
        self._speller = Speller(self.symbols)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self.max_length = max_length
        self._max_characters = max_length * MAX_CHARACTERS_A_TOKEN
        self._words = WordCache(self._tokenizer, max_length) if tokenizes_by_word(self._tokenizer) else None

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """One `Encoded` a text, in order. Call it once a request, since the Rust tokenizer is faster on batches."""
        if not all(map(str.isascii, texts)):  # a symbol to spell is not ASCII
            texts = [self._speller.spell(text[: self._max_characters + 1]) for text in texts]
        cut = [text[: self._max_characters] for text in texts]
        by_word = [None if self._words is None else self._words.encode(text) for text in cut]
        rest = [text for text, found in zip(cut, by_word, strict=True) if found is None]
        whole = iter(self._tokenizer.encode_batch_fast(rest) if rest else ())
        encoded = []
        for text, kept, found in zip(texts, cut, by_word, strict=True):
            if found is None:
                encoding = next(whole)
                found = tuple(encoding.ids), bool(encoding.overflowing)
            encoded.append(Encoded(found[0], found[1] or len(kept) < len(text)))
        return encoded

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """One `Tokens` a text, in order, of the ids that `encode` gives. Slower than that, since it tracks places."""
        kept = [text[: self._max_characters + 1] for text in texts]
        spelled = [self._speller.spell(text)[: self._max_characters] for text in kept]
        found = self._tokenizer.encode_batch(spelled)
        return [
            Tokens(tuple(encoding.ids), encoding.word_ids, self._speller.spans_before(text, encoding.offsets))
            for text, encoding in zip(kept, found, strict=True)
        ]

    def unknown(self, texts: Sequence[str]) -> Unknown:
        """The tokens of `texts` that the tokenizer does not know."""
        return unknown_tokens(self._tokenizer, [self._speller.spell(text) for text in texts])


def pad(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids of several texts to `input_ids` and `attention_mask`, both (len(rows), longest row), zero-padded."""
    longest = max(len(row) for row in rows)
    ids = np.zeros((len(rows), longest), np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask
