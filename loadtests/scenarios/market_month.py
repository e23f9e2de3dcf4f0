"""A made month of headlines on 30 topics, with surges, drifts and a copied story in it. All draws are seeded.

The quiet stream is more even than news, so that chance makes no surge: how often it does is measured by
loadtests/quality/surges.py, over many months.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

HOURS = 30 * 24
SHARES = {"negative": 0.25, "neutral": 0.4, "positive": 0.35}
COPIES = 60
_HOUR = timedelta(hours=1)
_NAMES = (
    "Velmora",
    "Kestrand",
    "Orlanda",
    "Brantic",
    "Tarnwick",
    "Harbrook",
    "Quellin",
    "Morvane",
    "Istrell",
    "Dunmere",
)
_COPY_FORMS = ("{}", "UPDATE 1-{}", "{} - Kestrand Times", "{}.", "BRIEF-{}", "{} | The Velmora Post")


@dataclass(frozen=True)
class Headline:
    id: str
    text: str
    topic: str
    published: datetime


@dataclass(frozen=True)
class Planted:
    """So many headlines more an hour on one topic. Hours count from the month's start."""

    topic: str
    first: int
    hours: int
    per_hour: int
    shares: Mapping[str, float]

    @property
    def after(self) -> int:
        """The hour after its last one."""
        return self.first + self.hours


@dataclass(frozen=True)
class Plan:
    """What is in the month besides its quiet stream."""

    surges: tuple[Planted, ...]
    rise: Planted
    """a rise that keeps its mood"""
    volume_drifts: str
    """the topic with four times as many headlines at the end"""
    mood_drifts: str
    """the topic whose share of negative headlines grows from 0.15 to 0.5"""
    copied: str
    copied_first: int
    """the hour from which a negative headline is printed COPIES times within three hours"""


def plan(topics: Sequence[str]) -> Plan:
    """Surges early, by night, at a weekend's distance, twice on one topic, yesterday, and one that goes on."""
    bad = {"negative": 1.0}

    def surge(topic: int, first: int, hours: int) -> Planted:
        return Planted(topics[topic], first, hours, 12, bad)

    return Plan(
        surges=(
            surge(3, 11 * 24 + 9, 5),
            surge(7, 19 * 24 + 14, 4),
            surge(12, 23 * 24 + 2, 3),
            surge(7, 26 * 24 + 16, 6),
            surge(18, HOURS - 14, 4),
            surge(25, HOURS - 3, 3),
        ),
        rise=Planted(topics[10], 22 * 24 + 8, 10, 8, SHARES),
        volume_drifts=topics[14],
        mood_drifts=topics[20],
        copied=topics[5],
        copied_first=21 * 24 + 10,
    )


def month(end: datetime, topics: Sequence[str], pool: Mapping[str, Sequence[str]], planned: Plan) -> list[Headline]:
    """The headlines of the HOURS before `end`, a full hour, earliest first. `pool`: texts by label."""
    made = _Texts(pool)
    found = [
        headline
        for number, topic in enumerate(topics)
        for headline in _quiet(end, topic, 0.25 + 0.9 * (number * 7 % len(topics)) / len(topics), made, planned)
    ]
    for planted in (*planned.surges, planned.rise):
        for hour in range(planted.first, planted.after):
            found += _hour(end, planted.topic, hour, planted.per_hour, planted.shares, made)
    found += _copies(end, made, planned)
    return sorted(found, key=lambda headline: (headline.published, headline.id))


class _Texts:
    """Draws texts by label; each is another story than all others, for it has a number of its own."""

    def __init__(self, pool: Mapping[str, Sequence[str]]):
        self._pool, self.chance, self._number = pool, random.Random(1), 10_000
        self._owed: dict[tuple[str, str], float] = {}

    def label(self, topic: str, shares: Mapping[str, float]) -> str:
        """The label that is furthest behind its share in the topic."""
        for label, share in shares.items():
            self._owed[topic, label] = self._owed.get((topic, label), self.chance.random() - 0.5) + share
        label = max(shares, key=lambda label: self._owed[topic, label])
        self._owed[topic, label] -= 1
        return label

    def text(self, label: str) -> str:
        self._number += 1
        return f"{self.chance.choice(self._pool[label])}, {self.chance.choice(_NAMES)} {self._number}"

    def plain(self, label: str) -> str:
        return self.chance.choice(self._pool[label])


def _quiet(end: datetime, topic: str, rate: float, made: _Texts, planned: Plan) -> Iterator[Headline]:
    """A topic's stream without what is planted: `rate` headlines an hour by day and week, evenly."""
    total = made.chance.random()
    for hour in range(HOURS):
        through = hour / HOURS
        drift = 4**through if topic == planned.volume_drifts else 1.0
        before, total = total, total + rate * drift * _rhythm(end + (hour - HOURS) * _HOUR)
        shares = SHARES
        if topic == planned.mood_drifts:
            negative = 0.15 + 0.35 * through
            shares = {"negative": negative, "neutral": 0.5 * (1 - negative), "positive": 0.5 * (1 - negative)}
        yield from _hour(end, topic, hour, math.floor(total) - math.floor(before), shares, made)


def _rhythm(hour: datetime) -> float:
    by_day = 1.6 if 7 <= hour.hour < 19 else 0.4
    return by_day * (0.4 if hour.weekday() >= 5 else 1.2)


def _hour(
    end: datetime, topic: str, hour: int, count: int, shares: Mapping[str, float], made: _Texts
) -> Iterator[Headline]:
    for _ in range(count):
        at = end + (hour - HOURS) * _HOUR + timedelta(seconds=made.chance.randrange(3600))
        text = made.text(made.label(topic, shares))
        yield Headline(f"market/{text.rpartition(' ')[2]}", text, topic, at)


def _copies(end: datetime, made: _Texts, planned: Plan) -> Iterator[Headline]:
    text, began = made.plain("negative"), end + (planned.copied_first - HOURS) * _HOUR
    for number in range(COPIES):
        at = began + number * 3 * _HOUR / COPIES
        yield Headline(f"market/copy-{number}", _COPY_FORMS[number % len(_COPY_FORMS)].format(text), planned.copied, at)
