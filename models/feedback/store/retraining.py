"""Requests for a retraining.

A request is `requested`, then `running`, then `done` or `failed`. A run satisfies every request that was made before it
started. It sets them to `running` once it holds the task's retraining lock, and finishes them before it releases the
lock: a request that is `running` while nobody holds the lock belongs to a run that was killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, and_, exists, insert, select, update

from models.feedback.store.audit_log import AuditLog
from models.feedback.store.database import Database
from models.feedback.store.schema import locks, retraining_requests

RequestState = Literal["requested", "running", "done", "failed"]

ACTION = "retrain asked"
"""action of the audit log entry for each request"""
_MAX_ATTEMPTS = 2
_KILLED = f"Its run was killed {_MAX_ATTEMPTS} times."

_c = retraining_requests.c


@dataclass(frozen=True, slots=True)
class RetrainingRequest:
    """One request. `outcome`, `sentence` and `version` are those of the run that satisfied it."""

    id: int
    task: str
    state: RequestState
    actor: str
    reason: str
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    outcome: str | None
    sentence: str | None
    version: str | None
    attempts: int
    """number of runs started for it"""


class RetrainingRequests:
    """Part of a `Store`: requests for a retraining, by task."""

    def __init__(self, database: Database, audit: AuditLog):
        self._database = database
        self._audit = audit

    def request(self, task: str, actor: str, reason: str) -> int:
        """Request a run, and log it in the audit log in the same transaction. The request's id."""
        entry = self._audit.entry(task, ACTION, None, actor, reason)
        values = {"task": task, "actor": actor, "reason": reason, "requested_at": entry.at, "attempts": 0}
        statement = insert(retraining_requests).values(state="requested", **values).returning(_c.id)

        def write(connection: Connection) -> int:
            self._audit.append_within(connection, entry)
            id_: int = connection.execute(statement).scalar_one()
            return id_

        return self._database.write(write)

    def next(self, task: str) -> RetrainingRequest | None:
        """The oldest request that is `requested`."""
        found = self._read(_requests(task).where(_c.state == "requested").order_by(_c.id).limit(1))
        return found[0] if found else None

    def latest(self, task: str, limit: int = 100) -> list[RetrainingRequest]:
        """The newest requests in any state, newest first."""
        return self._read(_requests(task).order_by(_c.id.desc()).limit(limit))

    def start(self, task: str) -> list[int]:
        """Set all `requested` requests to `running`; their ids, oldest first. Concurrent callers get disjoint ids.

        The caller must hold the task's retraining lock.
        """
        statement = _started(self._database.clock()).where(_c.task == task).returning(_c.id)
        return self._database.write(lambda connection: sorted(connection.scalars(statement)))

    def finish(self, task: str, outcome: str, sentence: str, version: str | None = None) -> int:
        """Set the `running` requests to `failed` if the outcome is "failed", else to `done`. How many.

        The caller must hold the task's retraining lock.
        """
        state: RequestState = "failed" if outcome == "failed" else "done"
        values = {"outcome": outcome, "sentence": sentence, "version": version, "ended_at": self._database.clock()}
        statement = update(retraining_requests).where(_c.task == task, _c.state == "running")
        return self._database.write(
            lambda connection: connection.execute(statement.values(state=state, **values)).rowcount
        )

    def recover(self, task: str, lock: str) -> tuple[int, int]:
        """Recover requests that are `running` while nobody holds `lock`: their run was killed.

        A request gets one more run, and fails when that is killed too. How many are `requested` again, and how many
        are `failed`.
        """
        now = self._database.clock()
        is_held = exists().where(locks.c.name == lock, locks.c.until >= now)
        is_lost = and_(_c.task == task, _c.state == "running", ~is_held)
        with self._database.read() as connection:  # called every two seconds, and a read needs no writer lock
            if connection.execute(select(_c.id).where(is_lost).limit(1)).first() is None:
                return 0, 0
        lost = update(retraining_requests).where(is_lost)
        ended = {"state": "failed", "outcome": "failed", "sentence": _KILLED, "ended_at": now}
        failed = lost.where(_c.attempts >= _MAX_ATTEMPTS).values(ended)
        again = lost.values(state="requested", started_at=None)

        def write(connection: Connection) -> tuple[int, int]:
            count = connection.execute(failed).rowcount
            return connection.execute(again).rowcount, count

        return self._database.write(write)

    def _read(self, query: Select[Any]) -> list[RetrainingRequest]:
        with self._database.read() as connection:
            return [_to_request(row) for row in connection.execute(query)]


def _requests(task: str) -> Select[Any]:
    return select(retraining_requests).where(_c.task == task)


def _started(now: datetime) -> Any:
    """The UPDATE of `requested` requests to `running`."""
    values = {"state": "running", "started_at": now, "attempts": _c.attempts + 1}
    return update(retraining_requests).where(_c.state == "requested").values(values)


def _to_request(row: Row[Any]) -> RetrainingRequest:
    return RetrainingRequest(**row._mapping)
