"""Words and phrases in a text, all of a registry in one pass: an Aho-Corasick automaton over the text in lower case.

A word is found whole, whatever its case and the signs between its parts: `trail mug` is in `Trail-Mug!`. With `*` at
its end any ending may follow. In scripts without spaces between words it is found anywhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from models.entities.normal import is_unspaced

T = TypeVar("T")
_SIGNS = "+&"  # part of a word: C++, Q&A


class Hit(NamedTuple, Generic[T]):
    """A word at `text[start:end]`."""

    start: int
    end: int
    of: T


class _Folds(dict[int, str]):
    """A table for `str.translate`: a letter or digit in lower case, a space for all else. Filled lazily."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kept = char.isalnum() or char in _SIGNS or unicodedata.category(char).startswith("M")
        self[code] = folded = char.lower()[0] if kept else " "  # U+0130 would become two characters
        return folded


_FOLDS = _Folds()
_ASCII_FOLDS = bytes(ord(_FOLDS[code]) if code < 128 else 0 for code in range(256))


class Words(Generic[T]):
    """Finds words, each with the things that it stands for. Thread-safe."""

    def __init__(self, entries: Iterable[tuple[str, T]]):
        of: dict[str, list[T]] = {}
        for word, thing in entries:
            if pattern := _pattern(word):
                of.setdefault(pattern, []).append(thing)
        self._of = list(of.items())
        self._things = [tuple(things) for things in of.values()]
        # What a match has more than its word: a space before, and one behind.
        self._before = [int(pattern.startswith(" ")) for pattern in of]
        self._behind = [int(pattern.endswith(" ")) for pattern in of]
        self._automaton = (
            AhoCorasick(list(of), matchkind=MatchKind.Standard, implementation=Implementation.ContiguousNFA)
            if of
            else None
        )

    def find(self, text: str) -> list[Hit[T]]:
        """Every word in the text, by start, of those with one start the longest first."""
        if self._automaton is None:
            return []
        key = f" {_folded(text)} "
        matches = self._automaton.find_matches_as_indexes(key, overlapping=True)
        if not matches:
            return []
        hits = [
            Hit(start - 1 + self._before[at], end - 1 - self._behind[at], thing)
            for at, start, end in matches
            for thing in self._things[at]
        ]
        if len(hits) > 1:
            hits.sort(key=_place)
        return hits


def _place(hit: Hit[Any]) -> tuple[int, int]:
    return hit.start, -hit.end


def _folded(text: str) -> str:
    """Of the same length."""
    if text.isascii():  # bytes have a table without a look-up a character
        return text.encode().translate(_ASCII_FOLDS).decode()
    return text.translate(_FOLDS)


def folded(text: str) -> str:
    """The text as words are compared: in lower case, one space for all that is no letter or digit."""
    return " ".join(_folded(text).split())


def _pattern(word: str) -> str:
    form = folded(word.removesuffix("*"))
    if not form:
        return ""
    before = "" if is_unspaced(form[0]) else " "
    behind = "" if word.endswith("*") or is_unspaced(form[-1]) else " "
    return f"{before}{form}{behind}"
