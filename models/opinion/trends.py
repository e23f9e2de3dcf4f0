"""Trends: counts of documents cut into points of any step from a minute to a month, in any time zone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from models.opinion.types import Counts

MAX_POINTS = 10_000
MINUTE_S, QUARTER_S, DAY_S = 60, 900, 86_400
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(2200, 1, 1, tzinfo=UTC)
"""no trend ends later; a typing error in a year should not become a table of zeros"""

_SHORT = re.compile(r"([0-9]{1,6})(mo|[mhdw])")
_ISO = re.compile(
    r"P(?:(?P<mo>[0-9]{1,6})M|(?P<w>[0-9]{1,6})W|(?P<d>[0-9]{1,6})D)|PT(?:(?P<h>[0-9]{1,6})H)?(?:(?P<m>[0-9]{1,6})M)?"
)
_UNIT_S = {"m": MINUTE_S, "h": 3600}
_MOST = {"d": 31, "w": 4, "mo": 1}
_MONDAY = date(1969, 12, 29)
_STEPS = "1m, 15m, 1h, 1d, 1w, 1mo, or an ISO 8601 duration such as PT15M, P1D, P1M"


class TrendError(ValueError):
    """Raised when a trend cannot be made as it was asked for; the text is `field: why`."""


@dataclass(frozen=True, slots=True)
class Step:
    """The length of a point: seconds, or so many local days, weeks or months."""

    unit: Literal["s", "d", "w", "mo"]
    number: int

    @property
    def seconds(self) -> int:
        """Its length; of days and longer without changes of the clock, of a month 30 days."""
        return self.number * {"s": 1, "d": DAY_S, "w": 7 * DAY_S, "mo": 30 * DAY_S}[self.unit]


class Point(NamedTuple):
    """The counts from `time`, which is local, to the next point."""

    time: datetime
    counts: Counts


@dataclass(frozen=True, slots=True)
class Grid:
    """The edges of a trend's points. Query counts of `rollup_s` from `start` to `end`, summed over `unit_s`."""

    edges: NDArray[np.int64]
    """(points + 1,): seconds since 1970, increasing"""
    zone: ZoneInfo
    step: Step
    unit_s: int
    """the greatest length of which every point has a whole number"""
    rollup_s: int
    """the length of the stored counts: a quarter of an hour if the step has whole ones, else a minute"""

    @property
    def start(self) -> int:
        return int(self.edges[0])

    @property
    def end(self) -> int:
        return int(self.edges[-1])

    def points(self, rows: Sequence[Sequence[int]]) -> list[Point]:
        """The points, those without rows included. A row is a unit's number, from `start` on, and its seven counts."""
        sums = np.zeros((len(self.edges) - 1, len(fields(Counts))), np.int64)
        if rows:
            table = np.array(rows, np.int64)
            at = np.searchsorted(self.edges, self.start + table[:, 0] * self.unit_s, side="right") - 1
            np.add.at(sums, at, table[:, 1:])
        times = (datetime.fromtimestamp(second, self.zone) for second in self.edges[:-1].tolist())
        return [Point(at, Counts(*row)) for at, row in zip(times, sums.tolist(), strict=True)]


def parse_step(text: str) -> Step:
    """A step as `15m` or `PT15M`. Raises TrendError."""
    short, iso = _SHORT.fullmatch(text.strip()), _ISO.fullmatch(text.strip())
    if short is not None:
        parts = {short.group(2): int(short.group(1))}
    elif iso is not None and any(iso.groupdict().values()):
        parts = {unit: int(number) for unit, number in iso.groupdict().items() if number}
    else:
        raise TrendError(f"step: {text[:50]!r} is no step; give {_STEPS}")
    if any(unit in _UNIT_S for unit in parts):
        step = Step("s", sum(number * _UNIT_S[unit] for unit, number in parts.items()))
    else:
        ((unit, number),) = parts.items()
        step = Step("d" if unit == "d" else "w" if unit == "w" else "mo", number)
    if not step.number:
        raise TrendError(f"step: {text!r} is no time at all; the shortest step is 1m")
    most = _MOST.get(step.unit, 31 * DAY_S)
    if step.number > most:
        raise TrendError(f"step: {text!r} is longer than a month; the longest steps are 1mo, 4w and 31d")
    return step


def parse_zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises TrendError."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a directory's name, an OSError
        raise TrendError(
            f"tz: there is no time zone {name[:100]!r}; give an IANA name, such as Europe/Berlin"
        ) from None


def parse_moment(name: str, text: str) -> datetime:
    """An RFC 3339 time with its zone, from 1970 to 2199. Raises TrendError."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise TrendError(f"{name}: {text[:100]!r} is no time; give one such as 2026-05-01T12:00:00Z") from None
    if moment.tzinfo is None:
        raise TrendError(
            f"{name}: {text!r} has no zone; add Z for UTC, or an offset such as +02:00 (in a URL %2B02:00)"
        )
    try:
        known = FIRST <= moment <= LAST
    except OverflowError:
        known = False
    if not known:
        raise TrendError(f"{name}: {text!r} is not between 1970 and 2200")
    return moment


def grid(start: datetime, end: datetime, step: Step, zone: ZoneInfo) -> Grid:
    """The points that contain the times from `start` to before `end`: the first and the last are whole.

    Days, weeks and months begin at local midnight, so a day has 23 or 25 hours when the clock changes. Weeks begin on
    Monday; several days or weeks are counted from 1970. Steps of minutes and hours are counted from the local midnight
    before `start`. Raises TrendError.
    """
    if start >= end:
        raise TrendError(f"start: {start.isoformat()} is not before the end, {end.isoformat()}")
    expected = (end - start).total_seconds() / step.seconds
    if expected > 1.1 * MAX_POINTS:  # not made first: a century of minutes has 52 million
        raise _too_many(int(expected))
    first, last = math.floor(start.timestamp()), math.ceil(end.timestamp())
    if step.unit == "s":
        midnight = _second(start.astimezone(zone).date(), zone)
        begin = midnight + (first - midnight) // step.number * step.number
        edges = np.arange(begin, last + step.number, step.number, dtype=np.int64)
    else:
        edges = _calendar(start.astimezone(zone).date(), end.astimezone(zone).date(), step, zone)
    # A day that a zone left out when it crossed the date line (Samoa, 30 December 2011) begins when the next one does.
    edges = np.unique(edges)
    edges = edges[np.searchsorted(edges, first, side="right") - 1 : np.searchsorted(edges, last, side="left") + 1]
    if len(edges) - 1 > MAX_POINTS:
        raise _too_many(len(edges) - 1)
    unit_s = math.gcd(*np.diff(edges).tolist())
    return Grid(edges, zone, step, unit_s, MINUTE_S if step.seconds % QUARTER_S else QUARTER_S)


def _too_many(points: int) -> TrendError:
    return TrendError(f"step: this range has {points:,} points; at most {MAX_POINTS:,} are given: take a longer step")


def _calendar(first: date, last: date, step: Step, zone: ZoneInfo) -> NDArray[np.int64]:
    """Edges at local midnights, from the one before `first` to the one after `last`."""
    if step.unit == "mo":
        months = range(12 * first.year + first.month - 1, 12 * last.year + last.month + 1)
        days = [date(month // 12, month % 12 + 1, 1) for month in months]
    else:
        length = step.number * (7 if step.unit == "w" else 1)
        begin = first - timedelta(days=(first - (_MONDAY if step.unit == "w" else FIRST.date())).days % length)
        count = (last - begin).days // length + 2
        days = [begin + timedelta(days=length * i) for i in range(count)]
    return np.array([_second(day, zone) for day in days], np.int64)


def _second(day: date, zone: ZoneInfo) -> int:
    """When a local day begins: midnight, or the moment to which the clock is put forward at midnight."""
    return math.floor(datetime.combine(day, time(), zone).timestamp())


def body(topic: str | None, grid: Grid, points: Sequence[Point]) -> dict[str, Any]:
    """The answer of `GET /v2/opinion/trends`."""
    return {
        "topic": topic,
        "step_s": grid.step.seconds,
        "points": [
            {
                "time": at.isoformat().replace("+00:00", "Z"),
                "texts": counts.texts,
                "stories": counts.stories,
                "positive": counts.positive,
                "neutral": counts.neutral,
                "negative": counts.negative,
                "net": round(counts.net, 4),
            }
            for at, counts in points
        ],
    }
