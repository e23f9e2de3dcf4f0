"""The audit log: which actor changed a task's versions, when, and for what reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from models.feedback.store.database import Database
from models.feedback.store.schema import audit_log

_c = audit_log.c


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of the audit log."""

    at: datetime
    task: str
    action: str
    version: str | None
    actor: str
    reason: str
    detail: dict[str, Any]


class AuditLog:
    """Part of a `Store`: entries are added and never changed."""

    def __init__(self, database: Database):
        self._database = database

    def append(
        self,
        task: str,
        action: str,
        version: str | None,
        actor: str,
        reason: str,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an entry with the current time."""
        entry = self.entry(task, action, version, actor, reason, detail)
        self._database.write(lambda connection: self.append_within(connection, entry))

    def entry(
        self,
        task: str,
        action: str,
        version: str | None,
        actor: str,
        reason: str,
        detail: Mapping[str, Any] | None = None,
    ) -> AuditEntry:
        """The entry that `append` would add, for `append_within`."""
        return AuditEntry(self._database.clock(), task, action, version, actor, reason, dict(detail or {}))

    def append_within(self, connection: Connection, entry: AuditEntry) -> None:
        """Add `entry` within the transaction of `connection`."""
        connection.execute(insert(audit_log).values(**asdict(entry)))

    def append_once(self, entries: Sequence[AuditEntry]) -> None:
        """Add those of `entries` that the log does not have yet, by task, time, action and actor."""

        def write(connection: Connection) -> None:
            for entry in entries:
                same = select(_c.id).where(
                    _c.task == entry.task, _c.at == entry.at, _c.action == entry.action, _c.actor == entry.actor
                )
                if connection.execute(same).first() is None:
                    self.append_within(connection, entry)

        self._database.write(write)

    def retrainings(self, task: str, outcomes: Sequence[str], limit: int = 100) -> list[tuple[str, datetime]]:
        """The task's newest retrainings with one of the outcomes, newest first: outcome, and when it ended."""
        actions = {f"retrain {outcome}": outcome for outcome in outcomes}
        query = select(_c.action, _c.at).where(_c.task == task, _c.action.in_(actions))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_c.id.desc()).limit(limit)).all()
        return [(actions[action], at) for action, at in rows]

    def entries(self, task: str, limit: int = 100) -> list[AuditEntry]:
        """The task's newest entries, newest first."""
        query = (
            select(_c.at, _c.task, _c.action, _c.version, _c.actor, _c.reason, _c.detail)
            .where(_c.task == task)
            .order_by(_c.id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return [AuditEntry(*row) for row in connection.execute(query)]
