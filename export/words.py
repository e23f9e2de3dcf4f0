"""Token ids word by word: the words of a language are few, and each needs the tokenizer only once.

BERT's tokenizer looks at each word alone, so the ids of a text are those of its words in a row. That holds for
printable ASCII, where words and punctuation are told apart by their characters; all else is left to the tokenizer.
"""

from __future__ import annotations

import re
from itertools import chain

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_PLAIN = re.compile(r"[ -Z\\-~]*")  # printable ASCII but the bracket that begins "[SEP]"
_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9 ]")  # any other character is punctuation, and a word by itself
_LONGEST = 30  # characters of a word that is kept
_MOST = 20_000  # words kept, some 4 MB; a task's texts have a few thousand
_MAX_NEW = 16  # words of a text asked for one by one; with more of them the whole text is sooner done


class Words:
    """What `tokenizer` makes of single words, remembered, and put together to what it would make of a text."""

    def __init__(self, tokenizer: Tokenizer, max_length: int):
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        whole, inner = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
        at = whole.index(inner[0])
        self._before, self._after = whole[:at], whole[at + len(inner) :]
        self._most = max_length - len(self._after)

    def encode(self, text: str) -> tuple[tuple[int, ...], bool] | None:
        """The ids of `text`, special ones included, and whether it was cut; None where the tokenizer must be asked."""
        if _PLAIN.fullmatch(text) is None:
            return None
        words = _WORD.findall(text)
        parts = list(map(self._known.get, words))
        if None in parts:
            self._learn(words)
            parts = list(map(self._known.get, words))
            if None in parts:
                return None
        ids = [*self._before, *chain.from_iterable(parts)]  # type: ignore[arg-type]  # there is no None left
        return (*ids[: self._most], *self._after), len(ids) > self._most

    def _learn(self, words: list[str]) -> None:
        new = [word for word in dict.fromkeys(words) if word not in self._known and len(word) <= _LONGEST][:_MAX_NEW]
        if len(self._known) + len(new) > _MOST:
            self._known.clear()  # those in use are back at once
        for word, encoding in zip(new, self._tokenizer.encode_batch_fast(new, add_special_tokens=False), strict=True):
            self._known[word] = encoding.ids


def goes_by_word(tokenizer: Tokenizer) -> bool:
    """Whether it is BERT's tokenizer, without special tokens but those in brackets."""
    parts = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model
    bert = all(map(isinstance, parts, (BertNormalizer, BertPreTokenizer, WordPiece)))
    return bert and all("[" in token.content for token in tokenizer.get_added_tokens_decoder().values())
