"""Feedback on its way in: joined with its prediction, stored once, durable when the call returns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from models.feedback.store.database import Database, chunks
from models.feedback.store.erasure import erased_users, is_erased
from models.feedback.store.label_join import Joined, Logged, join, key_of
from models.feedback.store.schema import clean, feedback, prediction_id, predictions
from models.feedback.types import NewFeedback, Outcome, Receipt, State

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


class FeedbackLog(Database):
    def add_feedback(self, items: Sequence[NewFeedback], *, keep_days: float) -> list[Receipt]:
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
        return self.write(lambda connection: self._store(connection, rows))

    def _join(self, items: Sequence[NewFeedback], keep_days: float) -> list[Joined | Outcome]:
        ids = [None if item.prediction_id is None else prediction_id(item.prediction_id) for item in items]
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for item, id_ in zip(items, ids, strict=True):
            if id_ is not None:
                wanted[item.task].add(id_)
        logged: dict[tuple[str, str | None], Logged] = {}
        if wanted:
            with self.read() as connection:
                for task, of_task in wanted.items():
                    for some in chunks(sorted(of_task)):
                        rows = connection.execute(_LOGGED, {"of_task": task, "ids": some}).all()
                        logged |= {(task, id_): Logged(*rest) for id_, *rest in rows}
        oldest = self.clock() - timedelta(days=keep_days)
        return [join(item, logged.get((item.task, id_)), oldest) for item, id_ in zip(items, ids, strict=True)]

    def _store(self, connection: Connection, rows: Sequence[_Row | Outcome]) -> list[Receipt]:
        """Insert what is new and change what is there."""
        self.hold_off_erasure(connection)
        rows = _without_erased(connection, rows)
        first: dict[bytes, _Row] = {}
        for row in rows:
            if not isinstance(row, str):
                first.setdefault(row["key"], row)
        new, held = self._insert_new(connection, first)
        changed: dict[int, _Row] = {}
        now = self.clock()
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
        statement = self.insert(feedback).on_conflict_do_nothing(index_elements=["key"]).returning(_c.id, _c.key)
        inserted = connection.execute(statement, [rows[key] for key in sorted(rows)]).all()
        held = {key: rows[key] | {"id": id_} for id_, key in inserted}
        new = set(held)
        for some in chunks(sorted(rows.keys() - new)):
            for row in connection.execute(_EXISTING, {"keys": some}):
                held[row.key] = dict(row._mapping)
        return new, held


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
