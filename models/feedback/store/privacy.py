"""Erasure of one user's data on request."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, or_, select, tuple_

from models.feedback.store.audit_log import AuditLog
from models.feedback.store.database import Database, chunks
from models.feedback.store.schema import clean, erased, feedback, predictions, trained


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was deleted, and by task the versions that had learned from it: they remember until they are retired."""

    predictions: int
    feedback: int
    versions: dict[str, list[str]]


class Privacy:
    """Part of a `Store`: what is kept of one user goes when they ask for it."""

    def __init__(self, database: Database, audit: AuditLog):
        self._database = database
        self._audit = audit

    def erase(self, user: str, *, actor: str = "operator", reason: str = "the user asked for it") -> Erasure:
        """Delete the predictions of `user` (the hash they are logged with), the feedback they gave, and the feedback of
        others on their texts; overwrite the bytes. A prediction that names nobody is theirs if they told us of it.

        Rows of theirs that are still in a buffer somewhere are refused when they arrive. The audit log of each task
        says what was deleted and not whose it was. May be repeated: after StoreUnavailable it should be.
        """
        erasure = self._database.write(lambda connection: self._erase(connection, clean(user), actor, reason))
        self._database.overwrite_deleted()
        return erasure

    def _erase(self, connection: Connection, user: str, actor: str, reason: str) -> Erasure:
        self._database.hold_off_writers(connection)
        now = self._database.clock()
        connection.execute(
            self._database.insert(erased)
            .values(user=user, at=now)
            .on_conflict_do_update(index_elements=["user"], set_={"at": now})
        )
        given = feedback.alias()
        claimed = select(given.c.task, given.c.prediction_id).where(
            given.c.user == user, given.c.subject.is_(None), given.c.prediction_id.is_not(None)
        )
        theirs = or_(
            feedback.c.user == user,
            feedback.c.subject == user,
            and_(feedback.c.subject.is_(None), tuple_(feedback.c.task, feedback.c.prediction_id).in_(claimed)),
        )
        asked_by_them = or_(
            predictions.c.user == user,
            and_(predictions.c.user.is_(None), tuple_(predictions.c.task, predictions.c.id).in_(claimed)),
        )
        learned = (
            select(feedback.c.task, trained.c.version)
            .join(trained, trained.c.feedback_id == feedback.c.id)
            .where(theirs)
            .distinct()
            .order_by(feedback.c.task, trained.c.version)
        )
        versions: defaultdict[str, list[str]] = defaultdict(list)
        for task, version in connection.execute(learned):
            versions[task].append(version)
        asked = _by_task(connection, predictions, asked_by_them)
        told = _by_task(connection, feedback, theirs)
        # Read first: SQLite deletes while it looks, and what decides over a row may be another that is gone already.
        ids = list(connection.scalars(select(feedback.c.id).where(theirs)))
        connection.execute(delete(predictions).where(asked_by_them))
        for some in chunks(ids):
            connection.execute(delete(trained).where(trained.c.feedback_id.in_(some)))
            connection.execute(delete(feedback).where(feedback.c.id.in_(some)))
        for task in sorted(asked.keys() | told.keys()):
            detail = {"predictions": asked[task], "feedback": told[task], "versions": versions.get(task, [])}
            self._audit.append_within(connection, self._audit.entry(task, "erase", None, actor, reason, detail))
        return Erasure(asked.total(), told.total(), dict(versions))


def _by_task(connection: Connection, table: Table, condition: ColumnElement[bool]) -> Counter[str]:
    query = select(table.c.task, func.count()).where(condition).group_by(table.c.task)
    return Counter({row[0]: row[1] for row in connection.execute(query)})
