"""The words of a text, as the tokenizer divides it: each with its place in the text, and its tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from export.tokenizer import Tokens

# Thai and Lao, Myanmar, Khmer, kana, Han: written without spaces, so that a whole sentence may be one word of a
# tokenizer over bytes or a unigram model. There, each token counts as a word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_JOINER = "\u200d"  # of the emoji that are several, as families are
_SKIN = ("\U0001f3fb", "\U0001f3ff")  # the first and the last modifier
_REGIONAL = ("\U0001f1e6", "\U0001f1ff")  # two letters of this range are a flag


class Word(NamedTuple):
    """Consecutive tokens, and what stands in the text for them: `text[start:end]`, counted in code points."""

    start: int
    end: int
    first: int
    """position of the first token in the text's ids"""
    last: int
    """position after that of the last token"""

    def left_out(self, ids: Sequence[int]) -> tuple[int, ...]:
        """The text's token ids without this word's."""
        return (*ids[: self.first], *ids[self.last :])


def words_of(text: str, tokens: Tokens, max_words: int) -> list[Word]:
    """The words of `text` in order, of which none overlaps another or divides what is seen as one character.

    Of more than `max_words`, neighbours are taken together, so that there are `max_words`. Tokens that were cut off
    have none.
    """
    words: list[Word] = []
    number: int | None = None  # the tokenizer's, of the last word's last token
    for at, (found, span) in enumerate(zip(tokens.words, tokens.spans, strict=True)):
        if found is None:
            continue
        if words and span[0] < span[1] <= words[-1].end:  # not looked at again: a character may have a thousand accents
            words[-1] = words[-1]._replace(last=at + 1)
            number = found
            continue
        start, end = _visible(text, *span)
        if words and _continues(words[-1], text, start, end, found == number):
            last = words[-1]
            empty = last.start == last.end
            begin = start if empty else last.start
            # A token with nothing visible, as one of a control character, does not lengthen a word.
            stop = max(last.end, end) if empty or start < end else last.end
            words[-1] = Word(begin, stop, last.first, at + 1)
        else:
            words.append(Word(start, end, at, at + 1))
        number = found
    return _at_most(max_words, [word for word in words if word.start < word.end])


def _continues(word: Word, text: str, start: int, end: int, same: bool) -> bool:
    """Whether the token at text[start:end] is a part of `word`; `same`: for the tokenizer it is.

    A token or word with nothing visible goes with its neighbour.
    """
    if start < word.end or word.start == word.end:
        return True
    if not same:
        return False
    if start == end:
        return True
    return not text[word.end : start].isspace() and not _UNSPACED.search(text[max(0, start - 1) : start + 1])


def _visible(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without spaces at its ends, and with all of its last character, if that is an emoji of several."""
    found = text[start:end]
    start, end = end - len(found.lstrip()), start + len(found.rstrip())
    if start >= end:
        return start, start
    while end < len(text) and _is_attached(text, end):
        end += 1
    return start, end


def _is_attached(text: str, at: int) -> bool:
    """Whether text[at] is seen as one character with the one before: an accent, a skin, the end of a flag, a joiner."""
    one = text[at]
    if one.isascii():
        return False
    if one == _JOINER or text[at - 1] == _JOINER or _SKIN[0] <= one <= _SKIN[1]:
        return True
    if _REGIONAL[0] <= one <= _REGIONAL[1]:
        before = at
        while before and _REGIONAL[0] <= text[before - 1] <= _REGIONAL[1]:
            before -= 1
        return (at - before) % 2 == 1
    return unicodedata.category(one) in ("Mn", "Me", "Mc")


def _at_most(count: int, words: list[Word]) -> list[Word]:
    if len(words) <= count:
        return words
    bounds = [group * len(words) // count for group in range(count + 1)]
    groups = [words[a:b] for a, b in pairwise(bounds)]
    return [Word(group[0].start, group[-1].end, group[0].first, group[-1].last) for group in groups]
