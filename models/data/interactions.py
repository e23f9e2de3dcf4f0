"""Interactions of users with the items they were shown: the training data of the recommendation task.

A file is CSV or JSONL with one impression a row: `user_id`, `item_id`, `event` (`view` when it was only shown;
`click`, `buy` or `like` when it was chosen), `time` (any increasing number), `text` of the item, optional `split`
(`train` or `holdout`), and numeric columns of the item, such as `price`, under any other name.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from export.bundle import Lineage
from models.data.checks import Faults, row_faults
from models.data.dataset import SEED, load_kept
from models.data.records import DatasetError, column_fault, corpus_name, read_rows, stream_rows
from models.data.report import CorpusReport, Finding
from models.tasks.ranker import CHOSEN, EVENTS, HISTORY
from models.users import user_name

_REQUIRED = ("user_id", "item_id", "event", "time", "text")
_HOLDOUT_SHARE = 0.2
_MAX_EXAMPLES = 5
_SEED_FILE = SEED / "behaviour.csv"


class Impression(NamedTuple):
    """One item shown to one user, and whether the user chose it."""

    user: str
    item: str
    chosen: bool
    time: float
    holdout: bool
    before: bool = False
    """chosen before the recording: part of the user's history, but not a choice among shown items to learn from"""


class CatalogueItem(NamedTuple):
    text: str
    numbers: dict[str, float]


class Interactions(NamedTuple):
    """Impressions, sorted by user and time, and their items."""

    name: str
    impressions: list[Impression]
    items: dict[str, CatalogueItem]
    numbers: list[str]
    fingerprint: str
    added: Mapping[str, Any] = MappingProxyType({})
    """fields of the lineage about impressions that are not from the file"""

    def by_user(self) -> dict[str, list[Impression]]:
        users: dict[str, list[Impression]] = {}
        for impression in self.impressions:
            users.setdefault(impression.user, []).append(impression)
        return users

    def lineage(self) -> Lineage:
        """The lineage that the bundle and the MLflow run record."""
        held_out = sum(impression.holdout for impression in self.impressions)
        return Lineage(
            name=self.name,
            train_rows=sum(not impression.before for impression in self.impressions) - held_out,
            holdout_rows=held_out,
            items=len(self.items),
            fingerprint=self.fingerprint,
            **self.added,
        )


def histories(impressions: Sequence[Impression]) -> list[list[str]]:
    """For each of one user's impressions, oldest first: the user's history at that time, newest item last.

    It is the newest HISTORY items chosen before. Training, evaluation and serving must agree on it.
    """
    chosen: list[str] = []
    found = []
    for impression in impressions:
        found.append(chosen[-HISTORY:])
        if impression.chosen:
            chosen.append(impression.item)
    return found


def load_interactions(file: Path | None = None) -> Interactions:
    """Load `file`, or the seed shop. Without a `split` column each user's newest fifth is held out.

    Raises DatasetError, with the line numbers, on data that would train a wrong model.
    """
    return load_checked_interactions(file)[0]


def load_checked_interactions(file: Path | None = None) -> tuple[Interactions, CorpusReport]:
    """As `load_interactions`, with the report of what was found in the file. Raises DatasetError with all errors."""
    path = file or _SEED_FILE
    impressions: list[Impression] = []
    items: dict[str, CatalogueItem] = {}
    names: dict[str, str] = {}  # one string object a name, which all its rows share
    faults: Faults = defaultdict(list)
    kinds: dict[str, str] = {}  # of faults, each with the sentence of the first
    several: dict[str, str] = {}  # items with several texts, each with the line of a second one
    digest = hashlib.sha256()
    explicit = False
    for line, row in _rows(file):
        try:
            impression, numbers = _read_row(row, names)
        except ValueError as fault:
            sentence, kind = fault.args[0], fault.args[-1]
            faults[kinds.setdefault(kind, sentence)].append(line)
            continue
        digest.update(orjson.dumps(row, option=orjson.OPT_SORT_KEYS))
        explicit = explicit or bool(row.get("split"))
        impressions.append(impression)
        item = items.setdefault(impression.item, CatalogueItem(row["text"], numbers))
        if item.text != row["text"]:
            several.setdefault(impression.item, f"{impression.item!r} in line {line}")
    if errors := [finding.text for finding in row_faults(path, faults)]:
        raise DatasetError("\n".join(errors))
    impressions.sort(key=lambda impression: (impression.user, impression.time))
    if not explicit:
        impressions = _hold_out_newest(impressions)
    columns = sorted({name for item in items.values() for name in item.numbers})
    interactions = Interactions(corpus_name(path), impressions, items, columns, digest.hexdigest())
    _check(path, interactions)
    return interactions, _report(interactions, several)


def _read_row(row: dict[str, Any], names: dict[str, str]) -> tuple[Impression, dict[str, float]]:
    """The impression, and the numbers of its item.

    Raises ValueError with what is wrong, as a sentence, and the kind of fault where the sentence has the row's value.
    """
    for column in _REQUIRED:
        if fault := column_fault(row, column, may_be_number=column == "time"):
            raise ValueError(f"{fault}.")
    event, split = row["event"], row.get("split") or ""
    if event not in EVENTS:
        raise ValueError(f"the event is {event!r}; it must be one of: {', '.join(sorted(EVENTS))}.")
    user = user_name(row["user_id"])
    if not row["text"].strip() or user is None or not row["item_id"]:
        raise ValueError("user_id, item_id and text must not be empty.")
    if split not in ("train", "holdout", ""):
        raise ValueError(f"split is {split!r}; it must be 'train' or 'holdout'.")
    time = _number("time", row["time"])
    item = names.setdefault(row["item_id"], row["item_id"])
    numbers = {
        key: _number(key, value)
        for key, value in row.items()
        if key not in (*_REQUIRED, "split") and value not in ("", None)
    }
    return Impression(names.setdefault(user, user), item, event in CHOSEN, time, split == "holdout"), numbers


def _report(interactions: Interactions, several: Mapping[str, str]) -> CorpusReport:
    held_out = sum(impression.holdout for impression in interactions.impressions)
    found = Finding(
        "item_with_several_texts", "warning", len(several),
        f"{len(several):,} of {len(interactions.items):,} items have more than one text.",
        "The first text of an item is used. Write the same text in all its rows.",
        tuple(several.values())[:_MAX_EXAMPLES],
    )  # fmt: skip
    counts = len(interactions.impressions) - held_out, held_out, len(interactions.items)
    return CorpusReport(interactions.name, *counts, (found,) if several else (), "items")


def save_interactions(file: Path | None, kept: Path) -> None:
    """Write the rows of `file`, or of the seed shop, as JSONL; load_interactions reads it to the same fingerprint."""
    with kept.open("wb") as out:
        for _, row in _rows(file):
            out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def load_kept_interactions(home: Path, task: str, lineage: Lineage) -> Interactions:
    """The interactions with the lineage of a bundle's `manifest.data`, with the same holdout.

    Raises DatasetError when they were not kept, or the file has changed.
    """
    interactions = load_kept(home, task, lineage, load_interactions, load_interactions)
    return interactions._replace(name=lineage.name)


def _rows(file: Path | None) -> Iterator[tuple[int, dict[str, Any]]]:
    return _seed_rows(_SEED_FILE) if file is None else stream_rows(file, required=_REQUIRED)


def _seed_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    catalogue = {
        row["id"]: {"text": f"{row['title']}. {row['description']}", "price": row["price"]}
        for _, row in read_rows(SEED / "catalogue.csv", required=("id", "title", "description", "price"))
    }
    for line, row in read_rows(path, required=("user_id", "item_id", "event", "time")):
        yield line, {**row, **catalogue[row["item_id"]]}


def _number(column: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        hint = (
            "Give seconds since 1970, for instance."
            if column == "time"
            else "Write numbers such as 9.5, or leave the column out."
        )
        raise ValueError(f"{column} is {repr(value)[:40]}, which is not a number. {hint}", column)
    return number


def _hold_out_newest(impressions: list[Impression]) -> list[Impression]:
    total: dict[str, int] = {}
    for impression in impressions:
        total[impression.user] = total.get(impression.user, 0) + 1
    seen: dict[str, int] = {}
    split = []
    for impression in impressions:
        seen[impression.user] = seen.get(impression.user, 0) + 1
        newest = seen[impression.user] > total[impression.user] * (1 - _HOLDOUT_SHARE)
        split.append(impression._replace(holdout=newest))
    return split


def _check(path: Path, interactions: Interactions) -> None:
    for name, rows in (
        ("training", [i for i in interactions.impressions if not i.holdout]),
        ("holdout", [i for i in interactions.impressions if i.holdout]),
    ):
        chosen = sum(impression.chosen for impression in rows)
        if not 0 < chosen < len(rows):
            raise DatasetError(
                f"{path}: the {name} rows need both chosen and unchosen items; {chosen} of {len(rows)} are chosen."
            )
