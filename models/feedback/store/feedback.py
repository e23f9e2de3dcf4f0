"""Feedback on its way in: joined with its prediction, stored once, durable when the call returns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlalchemy import Connection, Select, bindparam, case, func, select, update

from models.feedback.store.database import Database, chunks
from models.feedback.store.erasure import erased_users, is_erased
from models.feedback.store.label_join import Joined, Logged, join, key_of
from models.feedback.store.queries import has_expired, is_waiting, samples_where, to_sample
from models.feedback.store.schema import clean, feedback, prediction_id, predictions, trained
from models.feedback.types import NewFeedback, Outcome, Receipt, Sample, State

_Row = dict[str, Any]
_c = feedback.c
# A row that nobody works on may still be changed by who sent it.
_OPEN: tuple[State, ...] = ("waiting", "no_consent")
_CHANGED = ("label", "state", "text")

# Made once: a statement that is built anew for each call costs more than SQLite takes to run it.
_LOGGED = select(
    predictions.c.id, predictions.c.version, predictions.c.input, predictions.c.output, predictions.c.user
).where(predictions.c.task == bindparam("of_task"), predictions.c.id.in_(bindparam("ids", expanding=True)))
_EXISTING = (
    select(_c.id, _c.key, _c.label, _c.state, _c.leased_until)
    .where(_c.key.in_(bindparam("keys", expanding=True)))
    .order_by(_c.key)
    .with_for_update()
)
_CHANGE = (
    update(feedback)
    .where(_c.id == bindparam("row"))
    .values({name: bindparam(f"new_{name}") for name in _CHANGED} | {"owner": None, "leased_until": None})
)


class Feedback:
    """Part of a `Store`: what users said of answers, joined with these, and how much of it there is."""

    def __init__(self, database: Database):
        self._database = database

    def add(self, items: Sequence[NewFeedback], *, keep_days: float) -> list[Receipt]:
        """Store the items in one transaction; one receipt an item, in order.

        `unknown_id`: no such prediction of this task, or the sender or who had asked was erased. `stale_id`: no such
        prediction, and the id says it is older than `keep_days` and has expired. `needs_index`: the prediction had
        several texts and `index` names none of them, or several items and `item_id` names none. `duplicate`: already
        there (the same prediction, text or item, event and source; or the same text, label, source and user), or
        already taken to be learned. `replaced`: already there and waiting, and it now has this label and consent.

        A row without consent keeps its label and no text. Consent that is taken back is so in every state: a run that
        holds the row loses it (`trained_on`), and what was learned from it is not learned from again.

        Raises ValueError for an item with neither id nor text.
        """
        if any(item.prediction_id is None and item.text is None for item in items):
            raise ValueError("feedback needs a prediction's id or a text")
        if not items:
            return []
        # Joined before the write lock is taken: what is erased in between is refused in `_store`.
        joined = self._join(items, keep_days)
        rows = [
            _row(item, found) if isinstance(found, Joined) else found for item, found in zip(items, joined, strict=True)
        ]
        return self._database.write(lambda connection: self._store(connection, rows))

    def counts(self, task: str) -> dict[State, int]:
        """How many rows of the task are in each state, zeros included; those whose lease has expired are waiting."""
        query = select(_c.state, func.count()).where(_c.task == task).group_by(_c.state)
        # Apart from it: the index alone answers the first, which is asked every other second.
        expired = select(func.count()).where(_c.task == task, has_expired(self._database.clock()))
        with self._database.read() as connection:
            found: dict[State, int] = {row[0]: row[1] for row in connection.execute(query)}
            again = connection.execute(expired).scalar_one() if "leased" in found else 0
        counts = {state: found.get(state, 0) for state in get_args(State)}
        return counts | {"waiting": counts["waiting"] + again, "leased": counts["leased"] - again}

    def oldest_waiting(self, task: str) -> datetime | None:
        """When the feedback that waits longest arrived."""
        query = select(func.min(_c.at)).where(_c.task == task, is_waiting(self._database.clock()))
        with self._database.read() as connection:
            oldest: datetime | None = connection.execute(query).scalar_one()
        return oldest

    def live_accuracy(self, task: str, since: datetime) -> dict[str, tuple[int, int]]:
        """By version: how many labels that users gave are those it had predicted, and how many they gave.

        Feedback that arrived at `since` or later and names its prediction; without consent too, but nothing that
        curation suspects to be wrong.
        """
        query = (
            select(_c.version, func.sum(case((_c.predicted == _c.label, 1), else_=0)), func.count())
            .where(
                _c.task == task, _c.at >= since, _c.version.is_not(None), _c.predicted.is_not(None),
                _c.label.is_not(None), _c.state != "quarantined",
            )
            .group_by(_c.version)
        )  # fmt: skip
        with self._database.read() as connection:
            return {version: (int(right), total) for version, right, total in connection.execute(query)}

    def used(self, task: str, versions: Collection[str] | None = None, limit: int | None = None) -> list[Sample]:
        """Samples that were learned from before, where `versions` are given by one of those; newest first."""
        query = samples_where(_c.task == task, _c.state == "used")
        if versions is not None:
            query = query.where(_c.id.in_(select(trained.c.feedback_id).where(trained.c.version.in_(versions))))
        return self._samples(query.limit(limit))

    def _join(self, items: Sequence[NewFeedback], keep_days: float) -> list[Joined | Outcome]:
        ids = [None if item.prediction_id is None else prediction_id(item.prediction_id) for item in items]
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for item, id_ in zip(items, ids, strict=True):
            if id_ is not None:
                wanted[item.task].add(id_)
        logged: dict[tuple[str, str | None], Logged] = {}
        if wanted:
            with self._database.read() as connection:
                for task, of_task in wanted.items():
                    for some in chunks(sorted(of_task)):
                        rows = connection.execute(_LOGGED, {"of_task": task, "ids": some}).all()
                        logged |= {(task, id_): Logged(*rest) for id_, *rest in rows}
        oldest = self._database.clock() - timedelta(days=keep_days)
        return [join(item, logged.get((item.task, id_)), oldest) for item, id_ in zip(items, ids, strict=True)]

    def _store(self, connection: Connection, rows: Sequence[_Row | Outcome]) -> list[Receipt]:
        """Insert what is new and change what is there."""
        self._database.hold_off_erasure(connection)
        rows = _without_erased(connection, rows)
        first: dict[bytes, _Row] = {}
        for row in rows:
            if not isinstance(row, str):
                first.setdefault(row["key"], row)
        new, held = self._insert_new(connection, first)
        changed: dict[int, _Row] = {}
        now = self._database.clock()
        receipts = []
        for row in rows:
            if isinstance(row, str):
                receipts.append(Receipt(row))
                continue
            there = held[row["key"]]
            outcome: Outcome = "duplicate"
            if row["key"] in new and row is first[row["key"]]:
                outcome = "accepted"
            elif _may_change(there, row, now):
                there |= {name: row[name] for name in _CHANGED} | {"leased_until": None}
                changed[there["id"]] = there
                outcome = "replaced"
            receipts.append(Receipt(outcome, there["id"]))
        if changed:
            values = [{"row": id_} | {f"new_{name}": row[name] for name in _CHANGED} for id_, row in changed.items()]
            connection.execute(_CHANGE, values)
        return receipts

    def _insert_new(self, connection: Connection, rows: dict[bytes, _Row]) -> tuple[set[bytes], dict[bytes, _Row]]:
        """The keys that were new, and what is stored under each key now, held until the transaction ends."""
        if not rows:
            return set(), {}
        # Ordered by key, so that two batches wait for each other in the same order and never in a ring.
        statement = (
            self._database.insert(feedback).on_conflict_do_nothing(index_elements=["key"]).returning(_c.id, _c.key)
        )
        inserted = connection.execute(statement, [rows[key] for key in sorted(rows)]).all()
        held = {key: rows[key] | {"id": id_} for id_, key in inserted}
        new = set(held)
        for some in chunks(sorted(rows.keys() - new)):
            for row in connection.execute(_EXISTING, {"keys": some}):
                held[row.key] = dict(row._mapping)
        return new, held

    def _samples(self, query: Select[Any]) -> list[Sample]:
        with self._database.read() as connection:
            return [to_sample(row) for row in connection.execute(query.order_by(_c.at.desc(), _c.id.desc()))]


def _may_change(there: _Row, row: _Row, now: datetime) -> bool:
    """Whether `row` says something new of what nobody works on, or takes its consent back."""
    until = there.get("leased_until")
    state = "waiting" if until is not None and until < now else there["state"]  # its run was killed
    if (row["label"], row["state"]) == (there["label"], state):
        return False
    return state in _OPEN or row["state"] == "no_consent"


def _without_erased(connection: Connection, rows: Sequence[_Row | Outcome]) -> list[_Row | Outcome]:
    """The rows, with `unknown_id` for those from an erased user or about one's text."""
    users = (row[name] for row in rows if not isinstance(row, str) for name in ("user", "subject"))
    if not (erased := erased_users(connection, users)):
        return list(rows)
    return [
        "unknown_id"
        if not isinstance(row, str) and any(is_erased(erased, row[name], row["at"]) for name in ("user", "subject"))
        else row
        for row in rows
    ]


def _row(item: NewFeedback, joined: Joined) -> _Row:
    return {
        "key": key_of(item, joined),
        "task": item.task,
        "state": "waiting" if item.consent else "no_consent",
        "at": item.at,
        "source": item.source,
        "text": joined.text if item.consent else None,
        "label": None if item.label is None else clean(item.label),
        "user": item.user,
        "subject": joined.subject,
        "prediction_id": item.prediction_id,
        "item_id": item.item_id,
        "event": item.event,
        "version": joined.version,
        "predicted": joined.predicted,
        "attempts": 0,
    }
