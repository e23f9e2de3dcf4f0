"""A cache of token ids by word: the vocabulary of a language is small, and each word needs the tokenizer only once.

BERT's tokenizer treats each word independently, so the ids of a text are the concatenated ids of its words. Only
printable ASCII is split here, since there characters alone decide; the tokenizer does all other texts.
"""

from __future__ import annotations

import re
from itertools import chain

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_PLAIN = re.compile(r"[ -Z\\-~]*")  # printable ASCII except the bracket that begins "[SEP]"
_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9 ]")  # any other character is punctuation, and a word by itself
_MAX_WORD_LENGTH = 30  # characters of a cached word
_MAX_WORDS = 20_000  # cached words, about 4 MB; a task's texts have a few thousand
_MAX_NEW = 16  # uncached words a text; with more, tokenizing the whole text is faster


class WordCache:
    """Caches the token ids of single words, and concatenates them to those that `tokenizer` gives for a text."""

    def __init__(self, tokenizer: Tokenizer, max_length: int):
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        whole, inner = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
        at = whole.index(inner[0])
        self._before, self._after = whole[:at], whole[at + len(inner) :]
        self._max_ids = max_length - len(self._after)

    def encode(self, text: str) -> tuple[tuple[int, ...], bool] | None:
        """The ids of `text`, special tokens included, and whether it was truncated; None: use the tokenizer."""
        if _PLAIN.fullmatch(text) is None:
            return None
        words = _WORD.findall(text)
        parts = list(map(self._known.get, words))
        if None in parts:
            self._add(words)
            parts = list(map(self._known.get, words))
            if None in parts:
                return None
        ids = [*self._before, *chain.from_iterable(parts)]  # type: ignore[arg-type]  # no part is None here
        return (*ids[: self._max_ids], *self._after), len(ids) > self._max_ids

    def _add(self, words: list[str]) -> None:
        new = [word for word in dict.fromkeys(words) if word not in self._known and len(word) <= _MAX_WORD_LENGTH][
            :_MAX_NEW
        ]
        if len(self._known) + len(new) > _MAX_WORDS:
            self._known.clear()  # words in use return soon
        for word, encoding in zip(new, self._tokenizer.encode_batch_fast(new, add_special_tokens=False), strict=True):
            self._known[word] = encoding.ids


def tokenizes_by_word(tokenizer: Tokenizer) -> bool:
    """Whether it is a BERT tokenizer whose special tokens all have brackets, so that WordCache is exact."""
    parts = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model
    bert = all(map(isinstance, parts, (BertNormalizer, BertPreTokenizer, WordPiece)))
    return bert and all("[" in token.content for token in tokenizer.get_added_tokens_decoder().values())
