"""Erasure of one user's data on request."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, or_, select, tuple_

from models.feedback.store.audit_log import AuditLog
from models.feedback.store.database import Database, chunks
from models.feedback.store.opinion import erase_documents
from models.feedback.store.schema import clean, erased, feedback, predictions, trained


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """The numbers of deleted rows, and by task the versions trained on them, which still hold what they learned."""

    predictions: int
    feedback: int
    versions: dict[str, list[str]]
    documents: int = 0
    """of opinion monitoring; their counts stay"""


class Privacy:
    """Part of a `Store`: erasure of one user's data."""

    def __init__(self, database: Database, audit: AuditLog):
        self._database = database
        self._audit = audit

    def erase(self, *users: str, actor: str = "operator", reason: str = "the user asked for it") -> ErasureResult:
        """Delete the predictions and documents of a user, their feedback, and the feedback of others on their texts;
        overwrite the bytes. A prediction without user is theirs if they gave feedback on it.

        `users` are all hashes of that one user (`UserHasher.all_hashes`).

        Their rows that are still in a buffer are rejected when they arrive. The audit log of each task records the
        counts and not the user. Idempotent; repeat it after StoreUnavailable.
        """
        cleaned = [clean(user) for user in users]
        erasure = self._database.write(lambda connection: self._erase(connection, cleaned, actor, reason))
        self._database.overwrite_deleted()
        return erasure

    def erasures(self) -> list[tuple[str, datetime]]:
        """The hashes of erased users, each with the time of its last erasure, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(erased.c.user, erased.c.at).order_by(erased.c.at, erased.c.user))
            return [(row.user, row.at) for row in rows]

    def replay(self, erasures: Sequence[tuple[str, datetime]], *, actor: str, reason: str) -> ErasureResult:
        """Erase again who was erased after this store was backed up: those of `erasures` that it does not know yet.

        Idempotent; repeat it after StoreUnavailable.
        """
        known = dict(self.erasures())
        missing = [user for user, at in erasures if user not in known or known[user] < at]
        total = ErasureResult(0, 0, {})
        for users in chunks(missing):
            done = self.erase(*users, actor=actor, reason=reason)
            total = _sum(total, done)
        return total

    def _erase(self, connection: Connection, users: Sequence[str], actor: str, reason: str) -> ErasureResult:
        self._database.block_writers(connection)
        now = self._database.clock()
        connection.execute(
            self._database.insert(erased)
            .values([{"user": user, "at": now} for user in users])
            .on_conflict_do_update(index_elements=["user"], set_={"at": now})
        )
        given = feedback.alias()
        claimed = select(given.c.task, given.c.prediction_id).where(
            or_(and_(given.c.user.in_(users), given.c.subject.is_(None)), given.c.subject.in_(users)),
            given.c.prediction_id.is_not(None),
        )
        named = or_(predictions.c.user.in_(users), predictions.c.subject.in_(users))
        prediction_of_feedback = tuple_(feedback.c.task, feedback.c.prediction_id)
        their_feedback = or_(
            feedback.c.user.in_(users),
            feedback.c.subject.in_(users),
            and_(feedback.c.subject.is_(None), prediction_of_feedback.in_(claimed)),
            prediction_of_feedback.in_(select(predictions.c.task, predictions.c.id).where(named)),
        )
        their_predictions = or_(
            named,
            and_(predictions.c.user.is_(None), tuple_(predictions.c.task, predictions.c.id).in_(claimed)),
        )
        learned = (
            select(feedback.c.task, trained.c.version)
            .join(trained, trained.c.feedback_id == feedback.c.id)
            .where(their_feedback)
            .distinct()
            .order_by(feedback.c.task, trained.c.version)
        )
        versions: defaultdict[str, list[str]] = defaultdict(list)
        for task, version in connection.execute(learned):
            versions[task].append(version)
        prediction_counts = _by_task(connection, predictions, their_predictions)
        feedback_counts = _by_task(connection, feedback, their_feedback)
        # Read the ids first: the condition refers to other rows, which SQLite may have deleted when it evaluates it.
        ids = list(connection.scalars(select(feedback.c.id).where(their_feedback)))
        asked = connection.execute(select(predictions.c.task, predictions.c.id).where(their_predictions)).all()
        # Documents are kept longer than predictions, and not all predictions are logged.
        documents = erase_documents(connection, users, asked, connection.execute(claimed).all())
        connection.execute(delete(predictions).where(their_predictions))
        for some in chunks(ids):
            connection.execute(delete(trained).where(trained.c.feedback_id.in_(some)))
            connection.execute(delete(feedback).where(feedback.c.id.in_(some)))
        for task in sorted(prediction_counts.keys() | feedback_counts.keys() | documents.keys()):
            counts = {"predictions": prediction_counts[task], "feedback": feedback_counts[task]}
            if documents[task]:
                counts["documents"] = documents[task]
            detail = {**counts, "versions": versions.get(task, [])}
            self._audit.append_within(connection, self._audit.entry(task, "erase", None, actor, reason, detail))
        return ErasureResult(prediction_counts.total(), feedback_counts.total(), dict(versions), documents.total())


def _by_task(connection: Connection, table: Table, condition: ColumnElement[bool]) -> Counter[str]:
    query = select(table.c.task, func.count()).where(condition).group_by(table.c.task)
    return Counter({row[0]: row[1] for row in connection.execute(query)})


def _sum(one: ErasureResult, other: ErasureResult) -> ErasureResult:
    versions = {
        task: sorted({*one.versions.get(task, ()), *other.versions.get(task, ())})
        for task in sorted({*one.versions, *other.versions})
    }
    return ErasureResult(
        one.predictions + other.predictions, one.feedback + other.feedback, versions, one.documents + other.documents
    )
