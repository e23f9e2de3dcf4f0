"""The type of a number by the words around it: the same ten digits may be a phone number or an order number."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from models.entities.words import Hit

REACH = 40  # characters before a number in which such words are searched

_SENTENCE = re.compile(r"[!?;]\s|(?<!\b(?:no|ph))(?<!nr)(?<!\b(?:t[eé]l|tlf|tfn|mob|fon|núm|num))\.\s", re.I)
_MONEY_BEFORE = re.compile(r"(?:[$€£¥₹]|\b(?:usd|eur|gbp|inr|chf|sek|nok|dkk|jpy|rs))\.? ?\Z", re.I)
_AMOUNT_AFTER = re.compile(
    r" ?(?:%|[$€£¥₹]|(?:shares|euros?|dollars?|pounds|usd|eur|gbp|units|mn|million|bn|billion|people|users|views)\b)",
    re.I,
)
_MINE_AFTER = re.compile(r"[\s,.-]{1,3}(?:is|was|are|=) (?:my|the) (?:\w+ )?(?:phone|mobile|cell|number|tel)", re.I)
_OF_THE_WORD_BEFORE = ("num", "núm", "ref", "code", "confirmation")


class Context:
    """The words of a text that say what the number behind them is."""

    def __init__(self, text: str, hits: Sequence[Hit[str]]):
        self._text = text
        self._hits: list[Hit[str]] = []
        reached = -1
        for hit in hits:  # of overlapping ones the first, and of these the longest
            if hit.start >= reached:
                self._hits.append(hit)
                reached = hit.end
        self._starts = [hit.start for hit in self._hits]
        self._ends = [hit.end for hit in self._hits]

    def topic(self, start: int) -> str | None:
        """The type that the nearest word before `start`, within its sentence, stands for; None without one."""
        hit = self.before(start)
        return None if hit is None else hit.of

    def before(self, start: int) -> Hit[str] | None:
        """The nearest word before `start` within its sentence."""
        at = bisect_right(self._ends, start) - 1
        if at < 0:
            return None
        hit = self._hits[at]
        if hit.start < start - REACH or _SENTENCE.search(self._text, hit.end, start):
            return None
        return hit._replace(of=self._hits[at - 1].of) if at and self._names_the_word_before(at) else hit

    def after(self, end: int) -> Hit[str] | None:
        """The first word that begins at `end` or behind it."""
        at = bisect_left(self._starts, end)
        return self._hits[at] if at < len(self._hits) else None

    def _names_the_word_before(self, at: int) -> bool:
        """Whether it is "number is" or "ref" behind a word such as "order": that word says whose number it is."""
        before, hit = self._hits[at - 1], self._hits[at]
        between = self._text[before.end : hit.start]
        near = len(between) <= 2 and "," not in between
        return near and self._text[hit.start : hit.end].lower().startswith(_OF_THE_WORD_BEFORE)


def is_amount(text: str, start: int, end: int) -> bool:
    """Whether a currency or a unit is right before or after."""
    return bool(_MONEY_BEFORE.search(text[max(0, start - 6) : start]) or _AMOUNT_AFTER.match(text, end))


def named_a_phone_after(text: str, end: int) -> bool:
    return bool(_MINE_AFTER.match(text, end))
