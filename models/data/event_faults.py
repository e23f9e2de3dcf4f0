"""Rows of files of events, items and users that cannot be used: what is wrong with each, and in which lines."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.checks import Faults, row_faults
from models.data.columns import Chunk, unit_of
from models.data.event_checks import text_columns
from models.data.event_times import is_time
from models.data.naming import name_it
from models.data.records import column_fault
from models.data.report import Finding
from models.tasks.event_names import EVENT_KINDS, EVENT_NAMES
from models.users import user_name

RowFault = Callable[[dict[str, Any]], tuple[str, str]]
"""what is wrong with a row, as a sentence, and the kind of fault, by which rows are counted together"""


class FileFaults:
    """The rows of one file that cannot be used, and its columns that are no features."""

    def __init__(self, path: Path):
        self._path = path
        self._faults: Faults = defaultdict(list)
        self._kinds: dict[str, str] = {}  # of faults, each with the sentence of the first
        self._columns: dict[str, tuple[str, list[int]]] = {}
        self._numeric: set[str] = set()

    def add_rows(self, chunk: Chunk, rows: NDArray[np.intp], fault: RowFault) -> None:
        """Add rows of a chunk; `fault` says what is wrong with one."""
        for at in rows.tolist():
            sentence, kind = fault(chunk.row(at))
            self._faults[self._kinds.setdefault(kind, sentence)].append(int(chunk.lines[at]))

    def is_text(self, column: str) -> bool:
        """Whether a column had values, and no number among them, in a whole chunk: no use in reading the others."""
        return column in self._columns and column not in self._numeric

    def add_features(self, chunk: Chunk, column: str, found: NDArray[np.float64], bad: NDArray[np.bool_]) -> None:
        """Add the values of a feature that are no finite number: faults if others of the column are."""
        if not bad.all() and np.isfinite(found).any():
            self._numeric.add(column)
        if not bad.any():
            return
        first = chunk.row(int(bad.argmax()))[column]
        what = "is not a number" if math.isnan(_float(first)) else "is not finite"
        sentence = f"{column} is {repr(first)[:40]}, which {what}. Write numbers such as 9.5, or leave the column out."
        self._columns.setdefault(column, (sentence, []))[1].extend(chunk.lines[bad].tolist())

    def add_lines(self, faults: Faults) -> None:
        """Add faults whose lines are known."""
        for sentence, lines in faults.items():
            self._faults[sentence] += lines

    def errors(self) -> list[Finding]:
        faults = {sentence: list(lines) for sentence, lines in self._faults.items()}
        for column in self._numeric & self._columns.keys():
            sentence, lines = self._columns[column]
            faults[sentence] = lines
        return list(row_faults(self._path, faults, unit_of(self._path)))

    def notes(self) -> list[Finding]:
        """The columns without any number."""
        texts = sorted(self._columns.keys() - self._numeric)
        return [text_columns(self._path, texts)] if texts else []


def event_fault(required: tuple[str, ...]) -> RowFault:
    """What is wrong with a row of events, in which these columns must stand."""

    def fault(row: dict[str, Any]) -> tuple[str, str]:
        sentence, *kind = _fault_of_event(row, required)
        return sentence, kind[0] if kind else sentence

    return fault


def _fault_of_event(row: dict[str, Any], required: tuple[str, ...]) -> tuple[str, ...]:
    for column in required:
        if fault := column_fault(row, column, may_be_number=column not in ("event", "text")):
            return (f"{fault}." if column in row else f"{fault}. {name_it(column)}",)
    event, value = row["event"], row.get("value")
    if event not in EVENT_KINDS:
        return (f"the event is {repr(event)[:40]}; it must be one of: {', '.join(sorted(EVENT_NAMES))}. If the "
                "file names them otherwise, say so: --event buy=purchase",)  # fmt: skip
    if not (_is_name(row["user_id"]) and _is_name(row["item_id"]) and str(row.get("text", "-")).strip()):
        return (f"{_listed(name for name in required if name not in ('event', 'time'))} must not be empty.",)
    if (row.get("split") or "") not in ("train", "holdout", ""):
        return (f"split is {repr(row['split'])[:40]}; it must be 'train' or 'holdout'.",)
    if not is_time(row["time"]):
        return (f"time is {repr(row['time'])[:40]}, which is no time. Write seconds since 1970, or ISO 8601 such as "
                "2026-01-31T09:30:00Z.", "time")  # fmt: skip
    needs = "its number of stars or points" if event == "rating" else "its seconds"
    return (f"the value of the {event} is {repr(value)[:40]}. A {event} needs {needs} in the column 'value', from 0 "
            "up; leave rows without one out.", f"value of {event}")  # fmt: skip


def item_fault(row: dict[str, Any]) -> tuple[str, str]:
    """What is wrong with a row of a file of items: a RowFault."""
    for column in ("item_id", "text"):
        if fault := column_fault(row, column, may_be_number=column == "item_id"):
            return f"{fault}.", fault
    return "item_id and text must not be empty.", "empty"


def user_fault(row: dict[str, Any]) -> tuple[str, str]:
    """What is wrong with a row of a file of users: a RowFault."""
    fault = column_fault(row, "user_id", may_be_number=True)
    return (f"{fault}.", fault) if fault else ("user_id must not be empty.", "empty")


def _is_name(value: Any) -> bool:
    if isinstance(value, str):
        return user_name(value) is not None
    return not isinstance(value, float) or value.is_integer()


def _float(value: Any) -> float:
    """The number; NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"
