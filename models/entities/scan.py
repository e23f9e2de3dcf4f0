"""One text to search, and what several detectors need of it, each computed once and only if one asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from models.entities.context import Context
from models.entities.normal import spaced

_DIGIT = re.compile(r"\d")
# These begin with a digit, which the regex engine finds fastest.
_TWO_DIGITS = re.compile(r"\d[\s().:/-]{0,3}\d")
_MIXED = re.compile(
    r"\d(?:\d\d[A-Za-z]|\d\d[ -][A-Za-z]\b|\d ?[A-Da-d]\b|\d[A-Za-z]\d\d|(?<=[A-Za-z]\d)\d{3}|\d{5}[-+])"
)
_LONG_WORD = re.compile(r"(?:0x|bc1|1|3)\w{20}")
_RUN = re.compile(r"\d[\d\s().\-/]{4,}\d")  # one character class: linear time
_SENTENCE = re.compile(r"\.\s+")
_URL = re.compile(
    r"://(?!wa\.me|api\.whatsapp)(?!\S{0,200}[?&/_-](?:phone|tel|mobile|msisdn|card|iban)\w{0,10}[=/])\S{1,2000}", re.I
)
_UPS = re.compile(r"\b1Z(?: ?[0-9A-Z]){16}\b")


class Run(NamedTuple):
    """Digits and separators within a sentence, and the type that the words before stand for."""

    start: int
    end: int
    about: str | None


class Scan:
    """A text in its normalized view.

    - `context_of` makes its `context`.
    - `day_first`: whether 03/05 is the third of May.
    """

    # Not functools.cached_property, whose lock takes longer than most of these.
    __slots__ = ("_context", "_context_of", "_lowered", "_runs", "_unkeyed", "day_first", "has_digit", "has_two_digits",
                 "spaced", "text")  # fmt: skip

    def __init__(self, text: str, context_of: Callable[[str], Context], *, day_first: bool = True):
        self.text = text
        self.day_first = day_first
        self.has_digit = _DIGIT.search(text) is not None
        self.spaced = spaced(text) if self.has_digit else text
        """the text with a sign in place of each letter of a script without spaces, if it has a digit"""
        self.has_two_digits = self.has_digit and _TWO_DIGITS.search(self.spaced) is not None
        self._context_of = context_of
        self._lowered: str | None = None
        self._unkeyed: str | None = None
        self._context: Context | None = None
        self._runs: Sequence[Run] | None = None

    def has_long_word(self) -> bool:
        """Whether there is a word as a wallet could be."""
        return _LONG_WORD.search(self.spaced) is not None

    def is_mixed(self) -> bool:
        """Whether letters are beside digits as in some ids."""
        return _MIXED.search(self.spaced) is not None

    @property
    def lowered(self) -> str:
        if self._lowered is None:
            self._lowered = self.text.lower()
        return self._lowered

    @property
    def context(self) -> Context:
        if self._context is None:
            self._context = self._context_of(self.text)
        return self._context

    @property
    def unkeyed(self) -> str:
        """`spaced`, without the digits of UPS parcels, and of URLs that name no phone, card or account."""
        if self._unkeyed is None:
            text = self.spaced
            if "1Z" in text:
                text = _UPS.sub(_without_digits, text)
            self._unkeyed = _URL.sub(_without_digits, text) if "://" in text else text
        return self._unkeyed

    @property
    def runs(self) -> Sequence[Run]:
        """Runs of digits long enough for some personal type."""
        if self._runs is None:
            self._runs = list(self._all_runs())
        return self._runs

    def _all_runs(self) -> Iterator[Run]:
        text = self.unkeyed
        for run in _RUN.finditer(text):
            ends = [gap.end() for gap in _SENTENCE.finditer(text, *run.span())]
            for start, end in pairwise((run.start(), *ends, run.end())):
                digits = sum(map(str.isdigit, text[start:end]))
                about = self.context.topic(start) if digits >= 6 and start == run.start() else None
                if digits >= 7 or (digits == 6 and about in ("id", "account", "iban")):
                    yield Run(start, end, about)


def _without_digits(key: re.Match[str]) -> str:
    return _DIGIT.sub("_", key[0])
