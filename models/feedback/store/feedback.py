"""Intake of feedback: joined with its prediction, deduplicated, durable when the call returns. And its counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlalchemy import ColumnElement, Connection, Select, bindparam, case, func, select, update

from models.feedback.store.database import Database, chunks
from models.feedback.store.erasure import erased_users, is_erased
from models.feedback.store.label_join import Joined, Logged, join, key_of
from models.feedback.store.queries import MAX_LEASE, has_expired, is_waiting, samples_where, to_sample
from models.feedback.store.schema import clean, feedback, prediction_id, predictions, trained
from models.feedback.types import FeedbackOutcome, FeedbackState, GivenLabel, ItemEvent, NewFeedback, Receipt, Sample

_Row = dict[str, Any]
_c = feedback.c
# States in which new feedback may still change the row: no run holds it.
_OPEN: tuple[FeedbackState, ...] = ("waiting", "no_consent")
_CHANGED = ("label", "value", "state", "text")

# Built once: building a statement takes longer than SQLite takes to run it.
_LOGGED = select(
    predictions.c.id,
    predictions.c.version,
    predictions.c.input,
    predictions.c.output,
    func.coalesce(predictions.c.subject, predictions.c.user),
).where(predictions.c.task == bindparam("of_task"), predictions.c.id.in_(bindparam("ids", expanding=True)))
_STILL_LOGGED = select(predictions.c.id).where(
    predictions.c.task == bindparam("of_task"), predictions.c.id.in_(bindparam("ids", expanding=True))
)
_EXISTING = (
    select(_c.id, _c.key, _c.label, _c.value, _c.state, _c.leased_until)
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
    """Part of a `Store`: users' feedback, joined with the predictions it is about, and its counts."""

    def __init__(self, database: Database):
        self._database = database

    def add(self, items: Sequence[NewFeedback], *, keep_days: float) -> list[Receipt]:
        """Store the items in one transaction; one receipt an item, in order.

        - `accepted`: stored as a new row.
        - `unknown_id`: no such prediction of this task.
        - `erased`: the sender, or the user whose text it is, was erased after it was sent or minutes before.
        - `stale_id`: no such prediction, and its id is older than `keep_days`, so it has expired.
        - `needs_index`: the prediction has several texts and `index` is none of them, or no item `item_id`.
        - `duplicate`: already stored (the same prediction, text or item, event and source; or the same text, label,
          source, user and subject) and unchanged, or already leased or learned.
        - `replaced`: already stored and waiting; the row now has this label, or value, and consent.

        A row without consent has a label and no text. Consent can be withdrawn in every state: a run that holds the
        row loses it (`SampleLineage.record`), and a sample that was learned is not learned again.

        Raises ValueError for an item with neither id nor text.
        """
        if any(item.prediction_id is None and item.text is None for item in items):
            raise ValueError("feedback needs a prediction's id or a text")
        if not items:
            return []
        # Joined before the write lock is acquired: `_store` rejects what is erased or deleted in between.
        joined = self._join(items, keep_days)
        rows = [
            _row(item, found) if isinstance(found, Joined) else found for item, found in zip(items, joined, strict=True)
        ]
        return self._database.write(lambda connection: self._store(connection, rows))

    def counts(self, task: str) -> dict[FeedbackState, int]:
        """The number of the task's rows in each state, zeros included; rows with an expired lease count as waiting."""
        query = select(_c.state, func.count()).where(_c.task == task).group_by(_c.state)
        # A second query: the first runs every two seconds, and alone it needs only the index.
        expired = select(func.count()).where(_c.task == task, has_expired(self._database.clock()))
        with self._database.read() as connection:
            found: dict[FeedbackState, int] = {row[0]: row[1] for row in connection.execute(query)}
            again = connection.execute(expired).scalar_one() if "leased" in found else 0
        counts = {state: found.get(state, 0) for state in get_args(FeedbackState)}
        return counts | {"waiting": counts["waiting"] + again, "leased": counts["leased"] - again}

    def oldest_waiting(self, task: str) -> datetime | None:
        """The arrival time of the oldest waiting feedback; None if none waits."""
        query = select(func.min(_c.at)).where(_c.task == task, is_waiting(self._database.clock()))
        with self._database.read() as connection:
            oldest: datetime | None = connection.execute(query).scalar_one()
        return oldest

    def live_accuracy(self, task: str, since: datetime, limit: int | None = None) -> dict[str, tuple[int, int]]:
        """By version: (labels from users that equal the version's prediction, all labels from users).

        Counts feedback with a prediction that arrived at `since` or later, also without consent, except quarantined
        feedback. Given `limit`, the newest so many labels at most.
        """
        judged = (
            select(_c.version, case((_c.predicted == _c.label, 1), else_=0).label("right"))
            .where(*_judged(task, since), _c.version.is_not(None))
            .order_by(*([_c.at.desc()] if limit is not None else []))
            .limit(limit)
            .subquery()
        )
        query = select(judged.c.version, func.sum(judged.c.right), func.count()).group_by(judged.c.version)
        with self._database.read() as connection:
            return {version: (int(right), total) for version, right, total in connection.execute(query)}

    def corrected_answers(self, task: str, since: datetime, limit: int) -> tuple[int, int]:
        """(answers that users have corrected, all logged answers), of those at `since` or later, `limit` at most each.

        An answer with several texts counts once.
        """
        log = predictions.c
        answers = select(log.at).where(log.task == task, log.at >= since).limit(limit).subquery()
        corrected = (
            select(_c.prediction_id)
            .where(*_judged(task, since), _c.label != _c.predicted)
            .distinct()
            .limit(limit)
            .subquery()
        )
        with self._database.read() as connection:
            wrong, total = (
                connection.execute(select(func.count()).select_from(some)).scalar_one() for some in (corrected, answers)
            )
        return min(wrong, total), total

    def events(self, task: str, prediction_ids: Collection[str]) -> dict[str, list[ItemEvent]]:
        """By prediction: each event on one of its items, also without consent.

        Quarantined feedback is left out, as in `live_accuracy`; so are predictions without any.
        """
        found: dict[str, list[ItemEvent]] = {}
        columns = select(_c.prediction_id, _c.item_id, _c.event, _c.value)
        with self._database.read() as connection:
            for some in chunks(list(prediction_ids)):
                query = columns.where(
                    _c.task == task, _c.prediction_id.in_(some), _c.item_id.is_not(None), _c.state != "quarantined"
                )
                for id_, *event in connection.execute(query):
                    found.setdefault(id_, []).append(ItemEvent(*event))
        return found

    def labels(self, task: str, limit: int, since: datetime | None = None) -> list[GivenLabel]:
        """The newest `limit` labels, newest first, in whatever state; given `since`, those that arrived then or later.

        Also without consent: somebody has looked at the text.
        """
        query = select(
            _c.key, _c.source, _c.label, _c.prediction_id, _c.text, _c.predicted, _c.state != "quarantined"
        ).where(_c.task == task, _c.label.is_not(None), _c.item_id.is_(None))
        if since is not None:
            query = query.where(_c.at >= since)
        with self._database.read() as connection:
            return [GivenLabel(*row) for row in connection.execute(query.order_by(_c.at.desc()).limit(limit))]

    def used(self, task: str, versions: Collection[str] | None = None, limit: int | None = None) -> list[Sample]:
        """Samples that were learned; given `versions`, only those that one of these was trained on. Newest first."""
        query = samples_where(_c.task == task, _c.state == "used")
        if versions is not None:
            query = query.where(_c.id.in_(select(trained.c.feedback_id).where(trained.c.version.in_(versions))))
        return self._samples(query.limit(limit))

    def _join(self, items: Sequence[NewFeedback], keep_days: float) -> list[Joined | FeedbackOutcome]:
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

    def _store(self, connection: Connection, rows: Sequence[_Row | FeedbackOutcome]) -> list[Receipt]:
        """Insert new rows and change stored ones; one receipt a row."""
        self._database.block_erasure(connection)
        rows = _without_unlogged(connection, _without_erased(connection, rows))
        first: dict[bytes, _Row] = {}
        for row in rows:
            if not isinstance(row, str):
                first.setdefault(row["key"], row)
        new, stored = self._insert_new(connection, first)
        changed: dict[int, _Row] = {}
        now = self._database.clock()
        receipts = []
        for row in rows:
            if isinstance(row, str):
                receipts.append(Receipt(row))
                continue
            current = stored[row["key"]]
            outcome: FeedbackOutcome = "duplicate"
            if row["key"] in new and row is first[row["key"]]:
                outcome = "accepted"
            elif _may_change(current, row, now):
                current |= {name: row[name] for name in _CHANGED} | {"leased_until": None}
                changed[current["id"]] = current
                outcome = "replaced"
            receipts.append(Receipt(outcome, current["id"]))
        if changed:
            values = [{"row": id_} | {f"new_{name}": row[name] for name in _CHANGED} for id_, row in changed.items()]
            connection.execute(_CHANGE, values)
        return receipts

    def _insert_new(self, connection: Connection, rows: dict[bytes, _Row]) -> tuple[set[bytes], dict[bytes, _Row]]:
        """Insert the rows with new keys. These keys, and the stored row of each key, locked until the commit."""
        if not rows:
            return set(), {}
        # Ordered by key, so that two batches lock rows in the same order and do not deadlock.
        statement = (
            self._database.insert(feedback).on_conflict_do_nothing(index_elements=["key"]).returning(_c.id, _c.key)
        )
        inserted = connection.execute(statement, [rows[key] for key in sorted(rows)]).all()
        stored = {key: rows[key] | {"id": id_} for id_, key in inserted}
        new = set(stored)
        for some in chunks(sorted(rows.keys() - new)):
            for row in connection.execute(_EXISTING, {"keys": some}):
                stored[row.key] = dict(row._mapping)
        return new, stored

    def _samples(self, query: Select[Any]) -> list[Sample]:
        with self._database.read() as connection:
            return [to_sample(row) for row in connection.execute(query.order_by(_c.at.desc(), _c.id.desc()))]


def _judged(task: str, since: datetime) -> tuple[ColumnElement[bool], ...]:
    """Labels that users gave since then to what a version has predicted."""
    return (
        _c.task == task, _c.at >= since, _c.predicted.is_not(None), _c.label.is_not(None), _c.state != "quarantined",
    )  # fmt: skip


def _may_change(stored: _Row, row: _Row, now: datetime) -> bool:
    """Whether `row` differs from a stored row that no run holds, or withdraws consent."""
    until = stored.get("leased_until")
    held = until is not None and now <= until <= now + MAX_LEASE
    state = stored["state"] if held or until is None else "waiting"  # its run was killed
    if (row["label"], row["value"], row["state"]) == (stored["label"], stored["value"], state):
        return False
    return state in _OPEN or row["state"] == "no_consent"


def _without_erased(connection: Connection, rows: Sequence[_Row | FeedbackOutcome]) -> list[_Row | FeedbackOutcome]:
    """The rows, with `erased` in place of those from an erased user or about an erased user's text."""
    users = (row[name] for row in rows if not isinstance(row, str) for name in ("user", "subject"))
    if not (erased := erased_users(connection, users)):
        return list(rows)
    return [
        "erased"
        if not isinstance(row, str) and any(is_erased(erased, row[name], row["at"]) for name in ("user", "subject"))
        else row
        for row in rows
    ]


def _without_unlogged(connection: Connection, rows: Sequence[_Row | FeedbackOutcome]) -> list[_Row | FeedbackOutcome]:
    """The rows, with `unknown_id` in place of those whose prediction has been deleted since they were joined with it.

    An erasure deletes predictions of users that the rows do not name: of who asked on behalf of another, and of who
    gave feedback on a prediction without a user.
    """
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if not isinstance(row, str) and row["prediction_id"] is not None:
            wanted[row["task"]].add(prediction_id(row["prediction_id"]))
    logged: set[tuple[str, str]] = set()
    for task, ids in wanted.items():
        for some in chunks(sorted(ids)):
            logged |= {(task, id_) for id_ in connection.scalars(_STILL_LOGGED, {"of_task": task, "ids": some})}
    return [
        row
        if isinstance(row, str)
        or row["prediction_id"] is None
        or (row["task"], prediction_id(row["prediction_id"])) in logged
        else "unknown_id"
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
        "subject": joined.subject or item.subject,
        "prediction_id": item.prediction_id,
        "item_id": item.item_id,
        "event": item.event,
        "value": item.value,
        "version": joined.version,
        "predicted": joined.predicted,
        "attempts": 0,
    }
