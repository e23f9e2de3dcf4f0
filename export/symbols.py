"""Symbols that a tokenizer does not know, spelled in words: an emoji becomes its Unicode name.

BERT's vocabulary has hardly any emoji, so that three angry faces and three hearts were the same unknown token. Spelled
out, they are words whose meaning the encoder has learned. The table is part of the bundle (`assets/symbols.json`), so
that an answer does not depend on the Unicode version of the machine.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

# Punctuation and symbols, letters in circles and squares, styled mathematical letters, emoji, full-width letters.
_RANGES = ((0x2000, 0x3300), (0xFE00, 0xFE10), (0xFF00, 0xFFEF), (0x1D400, 0x1D800), (0x1F000, 0x1FB00))
_NAMED = ("So", "Sm", "Sc", "Po")
_SILENT = re.compile("variation selector|emoji modifier|combining enclosing keycap")  # say how the symbol before looks
_RED_HEART = "\u2764"  # the most used of all, which Unicode calls a heavy black heart
_FLAG = re.compile("regional indicator symbol letter (.)")  # two of them are the code of a country


def spelled_symbols(tokenizer: Tokenizer) -> dict[str, str]:
    """The symbols that `tokenizer` does not know, each with its spelling; none for a tokenizer that knows all bytes."""
    unknown = unknown_id(tokenizer)
    if unknown is None:
        return {}
    spelled = {
        chr(i): text for start, end in _RANGES for i in range(start, end) if (text := _spell(chr(i))) is not None
    }
    symbols = list(spelled)
    encoded = tokenizer.encode_batch_fast(symbols, add_special_tokens=False)
    return {symbol: spelled[symbol] for symbol, given in zip(symbols, encoded, strict=True) if unknown in given.ids}


def _spell(symbol: str) -> str | None:
    """The spelling of a character: plain letters for styled ones, the name of a symbol, nothing for a modifier."""
    name = "red heart" if symbol == _RED_HEART else unicodedata.name(symbol, "").lower()
    if _SILENT.match(name):
        return ""
    if (plain := unicodedata.normalize("NFKC", symbol)) != symbol:
        return plain
    if flag := _FLAG.match(name):
        return f" {flag[1]} "
    return f" {name} " if name and unicodedata.category(symbol) in _NAMED else None


class Speller:
    """Replaces symbols in texts by their spelling."""

    def __init__(self, symbols: Mapping[str, str]):
        self._table = str.maketrans(dict(symbols))
        self._symbols = frozenset(symbols)

    def spell(self, text: str) -> str:
        """The text; ASCII is returned at once, since it has no symbols of the table."""
        if text.isascii() or self._symbols.isdisjoint(text):
            return text
        return text.translate(self._table)

    def spans_before(self, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Spans of `spell(text)` as spans of `text`; a part of a symbol's spelling is the whole symbol."""
        if text.isascii() or self._symbols.isdisjoint(text):
            return list(spans)
        origin = [i for i, character in enumerate(text) for _ in character.translate(self._table)]
        return [(origin[a], origin[b - 1] + 1) if a < b else (0, 0) for a, b in spans]


class Unknown(NamedTuple):
    """Tokens that a tokenizer does not know, in some texts."""

    share: float
    """of all tokens, special ones left out, 0 to 1"""
    most_common: tuple[str, ...]
    """what stands in the texts for them"""


def unknown_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> Unknown:
    """The tokens of `texts` that `tokenizer` does not know."""
    unknown = unknown_id(tokenizer)
    found: Counter[str] = Counter()
    tokens = 0
    for text, encoding in zip(texts, tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
        tokens += len(encoding.ids)
        found.update(text[a:b] for i, (a, b) in zip(encoding.ids, encoding.offsets, strict=True) if i == unknown)
    return Unknown(found.total() / max(1, tokens), tuple(word for word, _ in found.most_common(3)))


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id of the unknown token; None when the tokenizer never gives one, as those over bytes."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("byte_fallback"):
        return None
    if (found := model.get("unk_id")) is not None:
        return int(found)
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)
