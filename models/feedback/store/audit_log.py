"""Who did what to a task's versions, what each version learned from, and locks by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from models.feedback.store.database import Database, chunks
from models.feedback.store.schema import audit_log, feedback, locks, trained


@dataclass(frozen=True, slots=True)
class Audit:
    """One entry of the audit log."""

    at: datetime
    task: str
    action: str
    version: str | None
    who: str
    why: str
    detail: dict[str, Any]


class Ledger(Database):
    def audit(
        self, task: str, action: str, version: str | None, who: str, why: str, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Add an entry; entries are never changed."""
        self.write(lambda connection: self.add_audit(connection, task, action, version, who, why, detail or {}))

    def add_audit(
        self, connection: Connection, task: str, action: str, version: str | None, who: str, why: str,
        detail: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """`audit` as a part of a larger transaction."""
        values = {"task": task, "action": action, "version": version, "who": who, "why": why, "detail": dict(detail)}
        connection.execute(insert(audit_log).values(at=self.clock(), **values))

    def audits(self, task: str, limit: int = 100) -> list[Audit]:
        """The task's newest entries, newest first."""
        c = audit_log.c
        query = (
            select(c.at, c.task, c.action, c.version, c.who, c.why, c.detail)
            .where(c.task == task)
            .order_by(c.id.desc())
            .limit(limit)
        )
        with self.read() as connection:
            return [Audit(*row) for row in connection.execute(query)]

    def trained_on(self, version: str, ids: Sequence[int]) -> set[int]:
        """Remember which samples a version learned from.

        Or, and then nothing is remembered, return those that were erased since they were leased, or whose consent was
        taken back: a version that learned from them must not serve.
        """

        def write(connection: Connection) -> set[int]:
            self.hold_off_erasure(connection)
            there: set[int] = set()
            for some in chunks(sorted(set(ids))):
                allowed = and_(feedback.c.id.in_(some), feedback.c.state != "no_consent")
                there |= set(connection.scalars(select(feedback.c.id).where(allowed)))
            if gone := set(ids) - there:
                return gone
            rows = [{"feedback_id": id_, "version": version} for id_ in sorted(there)]
            if rows:
                connection.execute(self.insert(trained).on_conflict_do_nothing(), rows)
            return set()

        return self.write(write)

    def follow_versions(self, task: str, live: Collection[str]) -> None:
        """Let the leased samples that the `live` versions learned be used, and the used ones that only others learned
        wait again: they are behind a version that was withdrawn, and curated anew.

        Only for who holds the lock of the task's runs. A version is released before its samples are settled: a run that
        was killed between the two left them leased. Those that wait may have been changed since they were learned, and
        are never taken for used.
        """
        state = feedback.c.state
        learned = feedback.c.id.in_(select(trained.c.feedback_id).where(trained.c.version.in_(live)))
        used = update(feedback).where(feedback.c.task == task, state == "leased", learned)
        again = update(feedback).where(feedback.c.task == task, state == "used", ~learned)
        free = {"owner": None, "leased_until": None}

        def write(connection: Connection) -> None:
            connection.execute(used.values(state="used", reason=None, **free))
            connection.execute(again.values(state="waiting", reason="no version that serves has learned it", **free))

        self.write(write)

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Take the lock, or renew it if `owner` has it; False if another has it and its time is not over."""
        now = self.clock()
        values = {"owner": owner, "until": now + timedelta(seconds=seconds)}
        statement = (
            self.insert(locks)
            .values(name=name, **values)
            .on_conflict_do_update(
                index_elements=["name"], set_=values, where=or_(locks.c.until < now, locks.c.owner == owner)
            )
            .returning(locks.c.name)
        )
        return self.write(lambda connection: connection.execute(statement).first() is not None)

    def is_locked(self, name: str) -> bool:
        """Whether someone holds the lock, and its time is not over."""
        query = select(locks.c.name).where(locks.c.name == name, locks.c.until >= self.clock())
        with self.read() as connection:
            return connection.execute(query).first() is not None

    def release_lock(self, name: str, owner: str) -> bool:
        """Let go of the lock; False if `owner` no longer had it."""
        statement = delete(locks).where(locks.c.name == name, locks.c.owner == owner)
        return self.write(lambda connection: connection.execute(statement).rowcount > 0)
