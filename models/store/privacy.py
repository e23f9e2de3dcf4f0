"""Erasure of one user's data on request."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select

from models.store.ledger import Ledger
from models.store.schema import clean, erased, feedback, predictions, trained


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was deleted, and by task the versions that had learned from it: they remember until they are retired."""

    predictions: int
    feedback: int
    versions: dict[str, list[str]]


class Privacy(Ledger):
    def erase(self, user: str, *, who: str = "operator", why: str = "the user asked for it") -> Erasure:
        """Delete the predictions of `user` (the hash they are logged with), the feedback they gave, and the feedback of
        others on their texts; overwrite the bytes.

        Rows of theirs that are still in a buffer somewhere are refused when they arrive. The audit log of each task
        says what was deleted and not whose it was. May be repeated: after StoreUnavailable it should be.
        """
        erasure = self.write(lambda connection: self._erase(connection, clean(user), who, why))
        self.overwrite_deleted()
        return erasure

    def _erase(self, connection: Connection, user: str, who: str, why: str) -> Erasure:
        self.hold_off_writers(connection)
        now = self.clock()
        connection.execute(
            self.insert(erased)
            .values(user=user, at=now)
            .on_conflict_do_update(index_elements=["user"], set_={"at": now})
        )
        theirs = or_(feedback.c.user == user, feedback.c.subject == user)
        ids = select(feedback.c.id).where(theirs)
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
        asked = _by_task(connection, predictions, predictions.c.user == user)
        given = _by_task(connection, feedback, theirs)
        connection.execute(delete(trained).where(trained.c.feedback_id.in_(ids)))
        connection.execute(delete(feedback).where(theirs))
        connection.execute(delete(predictions).where(predictions.c.user == user))
        for task in sorted(asked.keys() | given.keys()):
            detail = {"predictions": asked[task], "feedback": given[task], "versions": versions.get(task, [])}
            self.add_audit(connection, task, "erase", None, who, why, detail)
        return Erasure(asked.total(), given.total(), dict(versions))


def _by_task(connection: Connection, table: Table, condition: ColumnElement[bool]) -> Counter[str]:
    query = select(table.c.task, func.count()).where(condition).group_by(table.c.task)
    return Counter({row[0]: row[1] for row in connection.execute(query)})
