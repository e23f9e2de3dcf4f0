"""Times of events: numbers, or ISO 8601 and RFC 3339 texts, as seconds since 1970."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.checks import Faults, row_faults
from models.data.columns import Chunk, numbers, unit_of
from models.data.records import DatasetError
from models.data.report import Finding

MAX_SECONDS = 1e11
"""of a time in seconds since 1970, the year 5138; a larger number counts a smaller unit"""
_UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")  # each from a thousand times the bound before

_UTC = re.compile(r" UTC$")  # as BigQuery writes the zone

Floats = NDArray[np.float64]


class TimeColumn:
    """The times of a file of events, read chunk by chunk; they must all be written in one way."""

    def __init__(self, path: Path):
        self._path = path
        self._without_zone = 0
        self._lines: dict[bool, list[NDArray[np.uint32]]] = {True: [], False: []}
        """of times that are texts, and of those that are numbers"""

    def read(self, chunk: Chunk) -> Floats:
        """(rows,) times of a chunk; NaN for what is none."""
        values = chunk.get("time")
        found, bad = numbers(values)
        if isinstance(values, np.ndarray) or not bad.any():
            self._lines[False].append(chunk.lines)
            self._without_zone += len(chunk) if "time" in chunk.without_zone else 0
            found[bad] = np.nan
            return found
        texts = np.flatnonzero(bad)
        read = [_time_of(values[at]) for at in texts.tolist()]
        found[texts] = [seconds for seconds, _ in read]
        self._without_zone += sum(not has_zone for _, has_zone in read)
        is_time = np.isfinite(found)
        bad &= is_time
        self._lines[True].append(chunk.lines[bad])
        self._lines[False].append(chunk.lines[is_time & ~bad])
        return found

    def mixed(self) -> Faults:
        """The lines of the rarer way, if the file has texts and numbers."""
        texts, others = (sum(map(len, self._lines[is_text])) for is_text in (True, False))
        if not texts or not others:
            return {}
        if texts <= others:
            sentence = f"the time is a text, and {others:,} others are numbers. Write all in one way."
        else:
            sentence = f"the time is a number, and {texts:,} others are texts. Write all in one way."
        return {sentence: np.concatenate(self._lines[texts <= others]).tolist()}

    def findings(self) -> Iterator[Finding]:
        """That times have no zone."""
        if self._without_zone:
            yield Finding(
                "times_without_zone", "note", self._without_zone,
                f"{self._without_zone:,} times have no time zone and were read as UTC.",
                "Write the zone, such as 2026-01-31T09:30:00+01:00, if they are of another one.",
            )  # fmt: skip


def in_seconds(path: Path, times: Floats, lines: NDArray[Any], notes: list[Finding]) -> Floats:
    """The times of a file, (events,), in seconds where they are milliseconds, microseconds or nanoseconds since 1970.

    Raises DatasetError if they are of several units.
    """
    if times.max() <= MAX_SECONDS:
        return times
    unit = np.searchsorted([MAX_SECONDS * 1000**at for at in range(len(_UNITS) - 1)], times)
    counts = np.bincount(unit, minlength=len(_UNITS))
    usual = int(counts.argmax())
    if counts[usual] < len(times):
        odd = np.flatnonzero(unit != usual)
        sentence = (
            f"the time is {times[odd[0]]:.15g}, which counts {_UNITS[unit[odd[0]]]} since 1970, and "
            f"{counts[usual]:,} others count {_UNITS[usual]}. Write all in seconds."
        )
        faults: Faults = {sentence: lines[odd].tolist()}
        raise DatasetError("\n".join(finding.text for finding in row_faults(path, faults, unit_of(path))))
    notes.append(Finding(
        "times_in_another_unit", "warning", len(times),
        f"The times are above {MAX_SECONDS:g}, so they were read as {_UNITS[usual]} since 1970.",
        "Write seconds, so that they need not be guessed.",
    ))  # fmt: skip
    return times / 1000.0**usual


def is_time(value: Any) -> bool:
    """Whether a value of the column `time` can be read."""
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return math.isfinite(_time_of(value)[0])


def _time_of(value: Any) -> tuple[float, bool]:
    """(seconds since 1970, whether its zone is written) of a text; NaN for what is no time."""
    try:
        found = datetime.fromisoformat(_UTC.sub("+00:00", value.strip().upper()))
    except (AttributeError, ValueError):
        return math.nan, True
    if found.tzinfo is None:
        return found.replace(tzinfo=UTC).timestamp(), False
    return found.timestamp(), True
