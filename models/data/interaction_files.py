"""Interactions from files: events, and beside them, or in the same file, what is known of items and users.

A file of events is CSV, JSONL or Parquet with an event a row: `user_id`, `item_id`, `event` (one of EVENT_NAMES),
`time` (seconds since 1970, any increasing number, or ISO 8601), `value` (of a rating, and the seconds of a dwell),
`text` of the item unless a file of items has it, and optional `split` (`train` or `holdout`). All other columns of
numbers are features: those that begin with `user_` of the user, with `context_` of the event, the others of the item.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.bundle import Lineage
from models.data import event_checks as checks
from models.data.columns import Chunk, FeatureTable, Names, Values, numbers, read_chunks, unit_of
from models.data.dataset import SEED, load_kept
from models.data.event_faults import FileFaults, event_fault, item_fault, user_fault
from models.data.event_times import TimeColumn, in_seconds
from models.data.interactions import KEPT_ENDING, Events, Features, Interactions, read_kept, save_kept
from models.data.named_events import NamedEvents
from models.data.naming import OURS, Naming, name_it
from models.data.negatives import with_negatives
from models.data.records import DatasetError, MissingColumnError, corpus_name
from models.data.report import CorpusReport, Finding
from models.tasks.event_names import EVENT_KINDS, EVENT_NAMES, RatingScale
from models.users import user_name

_EVENT_COLUMNS = ("user_id", "item_id", "event", "time")
_KNOWN = frozenset({*_EVENT_COLUMNS, "text", "value", "split"})
_HOLDOUT_SHARE = 0.2
_SPLITS = ("train", "holdout")
_NO_SPLIT = len(_SPLITS)
_CODE_OF_EVENT = {name: code for code, name in enumerate(EVENT_NAMES)}
_CODE_OF_SPLIT = {"train": 0, "holdout": 1, "": _NO_SPLIT, None: _NO_SPLIT}
_WITH_VALUE = [code for name, code in _CODE_OF_EVENT.items() if EVENT_KINDS[name].has_value]
_SEED_EVENTS, _SEED_ITEMS = SEED / "behaviour.csv", SEED / "catalogue.csv"


@dataclass(frozen=True)
class InteractionFiles:
    """Where interactions are read from; `items` and `users` may lack where the events have what there is to know."""

    events: Path
    items: Path | None = None
    users: Path | None = None
    naming: Naming = OURS
    """of the columns of all three, and of the events"""


def load_interactions(files: InteractionFiles | Path | None = None) -> Interactions:
    """Load `files`, a file of events, or the seed shop. Without a `split` column each user's newest fifth is held out.

    Raises DatasetError, with the line numbers, on data that would train a wrong model.
    """
    return load_checked_interactions(files)[0]


def load_checked_interactions(files: InteractionFiles | Path | None = None) -> tuple[Interactions, CorpusReport]:
    """As `load_interactions`, with the report of what was found in the files. Raises DatasetError with all errors."""
    if files is None:
        files = InteractionFiles(_SEED_EVENTS, _SEED_ITEMS)
    elif isinstance(files, Path):
        files = InteractionFiles(files)
    reader = _Reader(files)
    reader.read()
    return reader.interactions()


def save_interactions(interactions: Interactions, kept: Path) -> None:
    """Keep what a version is trained on; load_kept_interactions reads it to the same fingerprint."""
    save_kept(interactions, kept)


def load_kept_interactions(home: Path, task: str, lineage: Lineage) -> Interactions:
    """The interactions with the lineage of a bundle's `manifest.data`, with the same holdout.

    Raises DatasetError when they were not kept, or the file has changed.
    """
    interactions = load_kept(home, task, lineage, read_kept, load_interactions, KEPT_ENDING)
    return replace(interactions, name=lineage.name)


@dataclass
class _Columns:
    """The columns of the events read so far, a list of arrays each."""

    user: list[NDArray[np.int32]] = field(default_factory=list)
    item: list[NDArray[np.int32]] = field(default_factory=list)
    event: list[NDArray[np.int8]] = field(default_factory=list)
    time: list[NDArray[np.float64]] = field(default_factory=list)
    value: list[NDArray[np.float32]] = field(default_factory=list)
    split: list[NDArray[np.int8]] = field(default_factory=list)
    line: list[NDArray[np.uint32]] = field(default_factory=list)

    def taken(self, column: str, dtype: type[np.generic]) -> NDArray[Any]:
        """The whole column; its parts are given up, so that memory has it once."""
        parts = getattr(self, column)
        setattr(self, column, [])
        return np.concatenate(parts) if parts else np.zeros(0, dtype)


class _Reader:
    """Reads the files of one InteractionFiles into columns, and collects all faults before it refuses."""

    def __init__(self, files: InteractionFiles):
        self._files = files
        self._users = Names(user_name)
        self._items = Names(lambda name: name if name.strip() else None)
        self._texts: list[str | None] = []
        self._columns = _Columns()
        self._tables = {"item": FeatureTable(), "user": FeatureTable()}
        self._context: dict[str, list[tuple[int, NDArray[np.float32]]]] = defaultdict(list)
        self._rows = 0
        self._notes: list[Finding] = []
        self._several: dict[int, str] = {}
        self._found_columns: set[str] = set()

    def read(self) -> None:
        """Read all files. Raises DatasetError with all rows that cannot be used."""
        errors = []
        for path, read in (
            (self._files.items, self._read_items),
            (self._files.events, self._read_events),
            (self._files.users, self._read_users),
        ):
            if path is not None:
                faults = FileFaults(path)
                try:
                    read(path, faults)
                except MissingColumnError as error:
                    raise DatasetError(f"{error}{self._remedy(error.column, path)}") from None
                errors += faults.errors()
                self._notes += faults.notes()
        if errors:
            raise DatasetError("\n".join(finding.text for finding in errors))
        named = self._files.naming.in_file(self._files.naming.columns)
        if missing := [column for column in named if column not in self._found_columns]:
            raise DatasetError(f"--column: no file has the column {missing[0]!r}. Correct the name, or leave it out.")

    def _remedy(self, column: str, path: Path) -> str:
        """What to do about a file without `column`."""
        if column in self._files.naming.in_file(self._files.naming.columns):
            return ""
        in_items = column == "text" and path == self._files.events
        return f". {name_it(column)}" + (
            ". Texts may be in a file of items instead: --items ITEMS.csv" if in_items else ""
        )

    def _chunks(self, path: Path, required: tuple[str, ...]) -> Iterator[Chunk]:
        """The rows of a file, with our names of its columns."""
        naming = self._files.naming
        for chunk in read_chunks(path, naming.in_file(required)):
            self._found_columns |= chunk.columns.keys()
            yield chunk.renamed(naming)

    def _read_items(self, path: Path, faults: FileFaults) -> None:
        seed = path == _SEED_ITEMS  # whose texts are in two columns
        for chunk in self._chunks(path, ("id", "title", "description") if seed else ("item_id", "text")):
            if seed:
                chunk = _seed_items(chunk)
            items = self._items.numbers_of(chunk.get("item_id"))
            texts = chunk.get("text")
            self._texts += [None] * (len(self._items.names) - len(self._texts))
            blank = [not isinstance(text, str) or not text.strip() for text in texts]
            faults.add_rows(chunk, np.flatnonzero((items < 0) | np.array(blank, np.bool_)), item_fault)
            self._take_texts(path, chunk, items)
            self._add_features(chunk, {"item": items}, frozenset({"item_id", "text"}), faults, "item")

    def _read_users(self, path: Path, faults: FileFaults) -> None:
        with_events = len(self._users.names)
        for chunk in self._chunks(path, ("user_id",)):
            users = self._users.numbers_of(chunk.get("user_id"))
            faults.add_rows(chunk, np.flatnonzero(users < 0), user_fault)
            users[users >= with_events] = -1
            self._add_features(chunk, {"user": users}, frozenset({"user_id"}), faults, "user")
        del self._users.names[with_events:]

    def _read_events(self, path: Path, faults: FileFaults) -> None:
        required = _EVENT_COLUMNS if self._files.items is not None else (*_EVENT_COLUMNS, "text")
        written, named = TimeColumn(path), NamedEvents(path, self._files.naming.events)
        for chunk in filter(len, map(named.read, self._chunks(path, required))):
            users = self._users.numbers_of(chunk.get("user_id"))
            items = self._items.numbers_of(chunk.get("item_id"))
            self._texts += [None] * (len(self._items.names) - len(self._texts))
            events = _codes(chunk.get("event"), _CODE_OF_EVENT)
            times = written.read(chunk)
            values = numbers(chunk.get("value"))[0]
            splits = _codes(chunk.get("split"), _CODE_OF_SPLIT)
            bad = (users < 0) | (items < 0) | (events < 0) | (splits < 0) | ~np.isfinite(times)
            bad |= np.isin(events, _WITH_VALUE) & ~(np.isfinite(values) & (values >= 0))
            if self._files.items is None:
                bad |= np.array([not isinstance(text, str) or not text.strip() for text in chunk.get("text")])
            faults.add_rows(chunk, np.flatnonzero(bad), event_fault(required))
            self._add_features(chunk, {"item": items, "user": users}, _KNOWN, faults, "item")
            if "text" in chunk.columns:
                self._take_texts(path, chunk, items)
            self._keep(users, items, events, times, values, splits, chunk.lines)
        faults.add_lines(written.mixed())
        self._notes += [*written.findings(), *named.findings()]

    def _keep(self, *columns: NDArray[Any]) -> None:
        dtypes = (np.int32, np.int32, np.int8, np.float64, np.float32, np.int8, np.uint32)
        for parts, values, dtype in zip(vars(self._columns).values(), columns, dtypes, strict=True):
            parts.append(values.astype(dtype, copy=False))
        self._rows += len(columns[0])

    def _take_texts(self, path: Path, chunk: Chunk, items: NDArray[np.int32]) -> None:
        """The first text of each item stays."""
        known = self._texts
        for at, (item, text) in enumerate(zip(items.tolist(), chunk.get("text"), strict=True)):
            if item < 0 or not isinstance(text, str) or text == known[item] or not text.strip():
                continue
            if known[item] is None:
                known[item] = text
            elif self._files.items is None or path == self._files.items:
                place = f"{self._items.names[item]!r} in {unit_of(path)} {chunk.lines[at]}"
                self._several.setdefault(item, place)

    def _add_features(
        self,
        chunk: Chunk,
        rows: Mapping[str, NDArray[np.int32]],
        known: frozenset[str],
        faults: FileFaults,
        default: str,
    ) -> None:
        """Take the columns that are features. `rows` are the chunk's items and users, `default` says whose most are."""
        for column, values in chunk.columns.items():
            if column in known or not isinstance(column, str):
                continue
            if faults.is_text(column):
                continue
            kind, name = _kind_of(column, default)
            found, bad = numbers(values)
            faults.add_features(chunk, column, found, bad)
            if kind == "context" and default == "item" and "user" in rows:
                self._context[name].append((self._rows, np.where(bad, np.nan, found).astype(np.float32)))
            elif kind in rows:
                self._tables[kind].add(name, rows[kind], np.where(bad, np.nan, found))

    def interactions(self) -> tuple[Interactions, CorpusReport]:
        """The interactions of what was read, and the report. Raises DatasetError for what teaches nothing."""
        lines, code = self._columns.taken("line", np.uint32), self._columns.taken("event", np.int8)
        split = self._columns.taken("split", np.int8)
        events, ratings = self._read_columns(code, split, lines)
        order = events.order()
        events, code = events.take(order), code[order]
        self._notes += checks.times_backwards(events, order)
        keep = checks.without_duplicates(events, code, lines[order], unit_of(self._files.events), self._notes)
        keep &= self._without_textless(events)
        events, code, order = events.take(keep), code[keep], order[keep]
        if not (split != _NO_SPLIT).any():
            events = replace(events, holdout=newest_fifth(events.user))
        keep = checks.without_chosen_views(events, code == _CODE_OF_EVENT["view"], self._notes)
        events, order = events.take(keep), order[keep]
        self._notes += checks.few_users(events)
        context, context_names = self._context_matrix(order)
        events, source = self._with_negatives(events)
        checks.check_outcomes(self._files.events, events)
        return self._finished(events, ratings, context[source], context_names)

    def _read_columns(
        self, code: NDArray[np.int8], split: NDArray[np.int8], lines: NDArray[np.uint32]
    ) -> tuple[Events, RatingScale]:
        """The events in the order of the file, and what ratings mean.

        Raises DatasetError if there are none, or of several units or scales.
        """
        if not len(code):
            raise DatasetError(f"{self._files.events}: there are no events.")
        chosen, ratings = checks.chosen_by_value(
            self._files.events, code, self._columns.taken("value", np.float32), lines
        )
        times = in_seconds(self._files.events, self._columns.taken("time", np.float64), lines, self._notes)
        weights = np.array([EVENT_KINDS[name].weight for name in EVENT_NAMES], np.float32)
        events = Events(
            self._columns.taken("user", np.int32), self._columns.taken("item", np.int32), chosen, weights[code],
            times, split == _SPLITS.index("holdout"),
            np.zeros(len(code), np.bool_), np.zeros(len(code), np.bool_),
        )  # fmt: skip
        return events, ratings

    def _without_textless(self, events: Events) -> NDArray[np.bool_]:
        """(events,): those of items that have a text. Raises DatasetError when none has."""
        has_text = np.array([text is not None for text in self._texts], np.bool_)
        keep: NDArray[np.bool_] = has_text[events.item]
        self._notes += checks.textless(self._files.items, self._items.names, has_text, keep)
        return keep

    def _with_negatives(self, events: Events) -> tuple[Events, NDArray[np.intp]]:
        found, source = with_negatives(events, len(self._items.names))
        if len(found) > len(events):
            self._notes.append(checks.negatives_sampled(len(found) - len(events), events))
        return found, source

    def _finished(
        self, events: Events, ratings: RatingScale, context: Features, context_names: list[str]
    ) -> tuple[Interactions, CorpusReport]:
        items = [at for at, text in enumerate(self._texts) if text is not None]
        item_features, item_feature_names = self._tables["item"].matrix(len(self._texts))
        user_features, user_feature_names = self._tables["user"].matrix(len(self._users.names))
        sampled = [finding.sentence for finding in self._notes if finding.kind == "negatives_sampled"]
        found = Interactions(
            corpus_name(self._files.events), self._users.names, [self._items.names[at] for at in items],
            [self._texts[at] or "" for at in items],
            replace(events, item=np.searchsorted(items, events.item).astype(np.int32)),
            item_features=item_features[items], item_feature_names=item_feature_names,
            user_features=user_features, user_feature_names=user_feature_names,
            context_features=context, context_feature_names=context_names, ratings=ratings,
            notes=tuple(sampled),
        )  # fmt: skip
        findings = [*checks.several_texts(self._several.values(), len(items)), *self._notes]
        findings.sort(key=lambda finding: finding.severity == "note")
        held_out = int(events.holdout.sum())
        counts = len(events) - held_out, held_out, len(items)
        return found, CorpusReport(found.name, *counts, tuple(findings), "items")

    def _context_matrix(self, order: NDArray[np.intp]) -> tuple[Features, list[str]]:
        names = sorted(self._context)
        found = np.full((len(order), len(names)), np.nan, np.float32)
        for at, name in enumerate(names):
            column = np.full(self._rows, np.nan, np.float32)
            for start, values in self._context.pop(name):
                column[start : start + len(values)] = values
            found[:, at] = column[order]
        known = [at for at in range(len(names)) if not np.isnan(found[:, at]).all()]
        return found[:, known], [names[at] for at in known]


def newest_fifth(users: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(events,): each user's newest fifth, rounded up; nothing of a user with one event. Sorted by user and time."""
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    totals = np.diff(starts, append=len(users))
    position = np.arange(len(users)) - np.repeat(starts, totals)
    total = np.repeat(totals, totals)
    newest: NDArray[np.bool_] = (position + 1 > total * (1 - _HOLDOUT_SHARE)) & (total > 1)
    return newest


def _codes(values: Values, codes: Mapping[Any, int]) -> NDArray[np.int8]:
    """(rows,): the code of each value; -1 for one that has none."""
    try:
        return np.fromiter((codes.get(value, -1) for value in values), np.int8, len(values))
    except TypeError:  # a list or an object of JSON
        return np.array([codes.get(value, -1) if isinstance(value, str) else -1 for value in values], np.int8)


def _kind_of(column: str, default: str) -> tuple[str, str]:
    """Whose feature a column is, and the feature's name."""
    for kind in ("user", "context"):
        if column.startswith(f"{kind}_") and len(column) > len(kind) + 1:
            return kind, column.removeprefix(f"{kind}_")
    return default, column


def _seed_items(chunk: Chunk) -> Chunk:
    texts = [
        f"{title}. {description}"
        for title, description in zip(chunk.get("title"), chunk.get("description"), strict=True)
    ]
    return Chunk(chunk.lines, {"item_id": chunk.get("id"), "text": texts, "price": chunk.get("price")})
