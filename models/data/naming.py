"""How a user's file names what is read: `--column text=subject` and `--event buy=purchase` of `flywheel train`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.tasks.event_names import EVENT_KINDS


@dataclass(frozen=True)
class Naming:
    """The names of a file's columns and events, where they are not ours."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """by our name; several columns of the file only for `text`, which are joined with a space"""
    events: Mapping[str, str] = field(default_factory=dict)
    """our name of an event by the file's"""

    def __bool__(self) -> bool:
        return bool(self.columns or self.events)

    def in_file(self, required: Iterable[str]) -> tuple[str, ...]:
        """The columns that the file must have for our `required` ones."""
        return tuple(name for column in required for name in self.columns.get(column, (column,)))

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the file with our names."""
        if not self.columns:
            return dict(row)
        renamed = {name: value for name, value in row.items() if self.keeps(name)}
        for name, theirs in self.columns.items():
            if given := [row[column] for column in theirs if column in row]:
                renamed[name] = given[0] if len(theirs) == 1 else joined(given)
        return renamed

    def keeps(self, column: str) -> bool:
        """Whether a column of the file stays under its own name."""
        return column not in self.columns and all(column not in theirs for theirs in self.columns.values())


OURS = Naming()
"""of a file that has our names"""


def name_it(column: str) -> str:
    """What to do about a file that lacks our column."""
    return f"If the file names it otherwise, say so: --column {column}=ITS_NAME"


def parse_naming(columns: Sequence[str], events: Sequence[str] = ()) -> Naming:
    """The naming in options `OURS=THEIRS`. Raises ValueError, with the remedy, for one that means nothing."""
    named: dict[str, tuple[str, ...]] = {}
    for ours, theirs in (_pair("--column", "label=queue", option) for option in columns):
        if ours in named and ours != "text":
            raise ValueError(f"--column {ours}=... stands twice; only text is read from several columns")
        named[ours] = (*named.get(ours, ()), theirs)
    ours_of: dict[str, str] = {}
    for ours, theirs in (_pair("--event", "buy=purchase", option) for option in events):
        if ours not in EVENT_KINDS:
            raise ValueError(
                f"--event {ours}={theirs}: there is no event {ours!r}. Write one of {', '.join(sorted(EVENT_KINDS))} "
                "before the sign, and the file's name behind it"
            )
        if ours_of.setdefault(theirs, ours) != ours:
            raise ValueError(f"--event: {theirs!r} is named as {ours_of[theirs]} and as {ours}")
    return Naming(named, ours_of)


def joined(values: Iterable[Any]) -> str | None:
    """The texts of several columns in one, without the empty ones; None if all are."""
    parts = [str(value).strip() for value in values if value is not None and value == value]
    return " ".join(filter(None, parts)) or None


def _pair(option: str, example: str, written: str) -> tuple[str, str]:
    ours, sign, theirs = (part.strip() for part in written.partition("="))
    if not (ours and sign and theirs):
        raise ValueError(f"{option} {written!r}: write our name, =, and the file's name: {option} {example}")
    return ours, theirs
