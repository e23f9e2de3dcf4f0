"""The prediction log: every answer, until it expires or its user asks to be forgotten."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from operator import attrgetter

from sqlalchemy import Connection, delete, exists, select

from models.feedback.store.database import Database
from models.feedback.store.erasure import erased_users, is_erased
from models.feedback.store.schema import feedback, predictions
from models.feedback.types import LoggedPrediction

_key = attrgetter("task", "id")
_COLUMNS = [field.name for field in fields(LoggedPrediction)]
_EXPIRED_AT_ONCE = 1000
_PAUSE_S = 0.02


class Predictions:
    """Part of a `Store`: the prediction log."""

    def __init__(self, database: Database):
        self._database = database
        self._statement = database.insert(predictions).on_conflict_do_nothing()

    def log(self, rows: Sequence[LoggedPrediction]) -> None:
        """Store the rows in one transaction.

        `input` of a classifier is the list of its texts, `output` the list of its predictions in the same order; of
        a ranker `input` is the request. Rows whose id is there already and rows of erased users are left out.
        """
        if rows:
            self._database.write(lambda connection: self._insert(connection, rows))

    def _insert(self, connection: Connection, rows: Sequence[LoggedPrediction]) -> None:
        self._database.hold_off_erasure(connection)
        erased = erased_users(connection, (row.user for row in rows))
        kept = [row for row in rows if not is_erased(erased, row.user, row.at)]
        if kept:
            kept.sort(key=_key)  # two writers never wait for each other
            connection.execute(self._statement, [{name: getattr(row, name) for name in _COLUMNS} for row in kept])

    def latest(self, task: str, since: datetime, limit: int) -> list[LoggedPrediction]:
        """The newest `limit` predictions made at `since` or later, newest first."""
        c = predictions.c
        query = (
            select(c.id, c.task, c.version, c.input, c.output, c.at, c.topic, c.user)
            .where(c.task == task, c.at >= since)
            .order_by(c.at.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return [LoggedPrediction(*row) for row in connection.execute(query)]

    def expire(self, before: datetime) -> int:
        """Delete the predictions made before `before`, a thousand at a time so that writers get their turn; how many.

        Those that an item's feedback still waits to be learned with stay: only there is the request they belong to.
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
