"""The prediction log: every prediction, until it expires or its user is erased."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from operator import attrgetter

from sqlalchemy import Connection, delete, exists, or_, select

from models.feedback.store.database import Database, chunks
from models.feedback.store.erasure import erased_users, is_erased
from models.feedback.store.opinion import Opinion
from models.feedback.store.schema import feedback, predictions
from models.feedback.types import LoggedPrediction, NewDocument

_key = attrgetter("task", "id")
_COLUMNS = [field.name for field in fields(LoggedPrediction)]
_EXPIRED_AT_ONCE = 1000
_READ_AT_ONCE = 200
_PAUSE_S = 0.02


class Predictions:
    """Part of a `Store`: the prediction log."""

    def __init__(self, database: Database, opinion: Opinion):
        self._database = database
        self._opinion = opinion
        self._statement = database.insert(predictions).on_conflict_do_nothing()

    def log(self, rows: Sequence[LoggedPrediction], documents: Sequence[NewDocument] = ()) -> None:
        """Store the rows, and the documents for opinion monitoring, in one transaction.

        For a classifier, `input` is the list of texts and `output` the list of predictions in the same order; for a
        ranker, `input` is the request. Rows with a stored id and rows of erased users are left out.
        """
        if rows or documents:
            self._database.write(lambda connection: self._insert(connection, rows, documents))

    def _insert(
        self, connection: Connection, rows: Sequence[LoggedPrediction], documents: Sequence[NewDocument]
    ) -> None:
        self._database.block_erasure(connection)
        self._opinion.receive_within(connection, documents)
        erased = erased_users(connection, (user for row in rows for user in (row.user, row.subject)))
        kept = [row for row in rows if not any(is_erased(erased, user, row.at) for user in (row.user, row.subject))]
        if kept:
            kept.sort(key=_key)  # the same order in all writers, so that they do not deadlock
            connection.execute(self._statement, [{name: getattr(row, name) for name in _COLUMNS} for row in kept])

    def latest(self, task: str, since: datetime, limit: int) -> list[LoggedPrediction]:
        """The newest `limit` predictions made at `since` or later, newest first."""
        c = predictions.c
        query = (
            select(c.id, c.task, c.version, c.input, c.output, c.at, c.topic, c.user, c.subject)
            .where(c.task == task, c.at >= since)
            .order_by(c.at.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return [LoggedPrediction(*row) for row in connection.execute(query)]

    def newest(self, task: str) -> Iterator[LoggedPrediction]:
        """The predictions of a task, from the last that was stored to the first, read some at a time."""
        c = predictions.c
        below: int | None = None
        while True:
            query = select(c.serial, *(c[name] for name in _COLUMNS)).where(c.task == task)
            if below is not None:
                query = query.where(c.serial < below)
            with self._database.read() as connection:
                rows = connection.execute(query.order_by(c.serial.desc()).limit(_READ_AT_ONCE)).all()
            if not rows:
                return
            below = rows[-1].serial
            yield from (LoggedPrediction(*row[1:]) for row in rows)

    def by_time(self, task: str) -> Iterator[LoggedPrediction]:
        """The predictions of a task by the time at which they were made, from the newest on, read some at a time.

        A reader that stops early has read no more than it needed, however long the log is.
        """
        c = predictions.c
        query = select(c.serial, *(c[name] for name in _COLUMNS)).where(c.task == task)
        query = page = query.order_by(c.at.desc(), c.serial.desc()).limit(_READ_AT_ONCE)
        while True:
            with self._database.read() as connection:
                rows = connection.execute(page).all()
            yield from (LoggedPrediction(*row[1:]) for row in rows)
            if len(rows) < _READ_AT_ONCE:
                return
            last = rows[-1]
            # The first condition bounds the range in the index; the second leaves out what was read at that moment.
            page = query.where(c.at <= last.at, or_(c.at < last.at, c.serial < last.serial))

    def logged(self, task: str, ids: Iterable[str]) -> set[str]:
        """Those of the predictions that are in the log."""
        c = predictions.c
        found: set[str] = set()
        with self._database.read() as connection:
            for some in chunks(sorted(ids)):
                found.update(connection.scalars(select(c.id).where(c.task == task, c.id.in_(some))))
        return found

    def expire(self, before: datetime) -> int:
        """Delete the predictions made before `before`, in batches so that writers are not blocked. How many.

        Predictions with waiting feedback on an item stay, since a ranker learns it together with their request.
        """
        waiting = exists().where(
            feedback.c.task == predictions.c.task,
            feedback.c.prediction_id == predictions.c.id,
            feedback.c.item_id.is_not(None),
            feedback.c.state.in_(("waiting", "leased")),
        )
        some = select(predictions.c.serial).where(predictions.c.at < before, ~waiting).limit(_EXPIRED_AT_ONCE)
        statement = delete(predictions).where(predictions.c.serial.in_(some))
        total = 0
        while deleted := self._database.write(lambda connection: connection.execute(statement).rowcount):
            total += deleted
            time.sleep(_PAUSE_S)
        return total
