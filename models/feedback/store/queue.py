"""Feedback on its way out: leased to one trainer at a time, and settled, given back or taken back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, select, update

from models.feedback.store.database import Database, chunks
from models.feedback.store.queries import is_waiting, samples_where, to_sample
from models.feedback.store.schema import feedback
from models.feedback.types import Sample

_c = feedback.c
_FREE = {"owner": None, "leased_until": None}
Settled = Literal["used", "quarantined", "dropped", "dead"]


class DeadLetter(NamedTuple):
    """A sample that was in too many failed attempts, and how the last one failed."""

    sample: Sample
    reason: str


class Queue:
    """Part of a `Store`: the samples that wait to be learned."""

    def __init__(self, database: Database):
        self._database = database

    def lease(self, task: str, owner: str, limit: int, seconds: float) -> list[Sample]:
        """Give `owner` the oldest `limit` waiting samples for `seconds`; nobody else gets them meanwhile.

        Samples whose lease has expired are waiting again.
        """
        now = self._database.clock()
        query = (
            samples_where(_c.task == task, is_waiting(now))
            .order_by(_c.at, _c.id)
            .limit(limit)
            .with_for_update(skip_locked=True, of=feedback)
        )
        leased = {"state": "leased", "owner": owner, "leased_until": now + timedelta(seconds=seconds)}

        def take(connection: Connection) -> list[Sample]:
            rows = connection.execute(query).all()
            for some in chunks([row.id for row in rows]):
                connection.execute(update(feedback).where(_c.id.in_(some)).values(leased))
            return [to_sample(row) for row in rows]

        return self._database.write(take)

    def renew(self, owner: str, seconds: float) -> int:
        """Let the leases of `owner` run for `seconds` from now; how many it still holds."""
        until = self._database.clock() + timedelta(seconds=seconds)
        statement = update(feedback).where(_held_by(owner)).values(leased_until=until)
        return self._database.write(lambda connection: connection.execute(statement).rowcount)

    def not_held(self, owner: str, ids: Collection[int]) -> set[int]:
        """Those that `owner` does not hold any more: they were erased, their consent was taken back, or another has
        them."""
        held: set[int] = set()
        with self._database.read() as connection:
            for some in chunks(sorted(ids)):
                held |= set(connection.scalars(select(_c.id).where(_held_by(owner), _c.id.in_(some))))
        return set(ids) - held

    def settle(self, owner: str, verdicts: Mapping[int, tuple[Settled, str | None]]) -> int:
        """Say in one transaction what became of leased samples, by id: the state and why; how many were changed.

        A sample that `owner` no longer holds, because its lease expired and another took it, is left as it is.
        """
        alike: dict[tuple[Settled, str | None], list[int]] = defaultdict(list)
        for id_, verdict in verdicts.items():
            alike[verdict].append(id_)

        def write(connection: Connection) -> int:
            changed = 0
            for (state, reason), ids in alike.items():
                for some in chunks(sorted(ids)):
                    statement = update(feedback).where(_held_by(owner), _c.id.in_(some))
                    changed += connection.execute(statement.values(_FREE | {"state": state, "reason": reason})).rowcount
            return changed

        return self._database.write(write)

    def give_back(
        self, owner: str, *, reason: str, failed: Collection[int] = (), max_attempts: int = 1
    ) -> dict[str, int]:
        """Return what `owner` holds to the queue; `reason` says why, and is kept. How many are `waiting`, and `dead`.

        Only an attempt that failed counts against a sample, and only against those it was made with, `failed`: what
        was in `max_attempts` of them is a dead letter.
        """

        def write(connection: Connection) -> dict[str, int]:
            dead = 0
            for some in chunks(sorted(failed)):
                blamed = update(feedback).where(_held_by(owner), _c.id.in_(some))
                connection.execute(blamed.values(attempts=_c.attempts + 1))
                too_often = blamed.where(_c.attempts >= max_attempts)
                dead += connection.execute(too_often.values(_FREE | {"state": "dead", "reason": reason})).rowcount
            rest = update(feedback).where(_held_by(owner)).values(_FREE | {"state": "waiting", "reason": reason})
            return {"dead": dead, "waiting": connection.execute(rest).rowcount}

        return self._database.write(write)

    def dead_letters(self, task: str) -> list[DeadLetter]:
        """What was in too many failed attempts, oldest first."""
        query = samples_where(_c.task == task, _c.state == "dead").order_by(_c.at, _c.id)
        with self._database.read() as connection:
            return [DeadLetter(to_sample(row), row.reason or "") for row in connection.execute(query)]

    def requeue(self, task: str) -> int:
        """Put the task's dead letters back into the queue, with all attempts before them again; how many."""
        statement = update(feedback).where(_c.task == task, _c.state == "dead")
        values = {"state": "waiting", "attempts": 0, "reason": None}
        return self._database.write(lambda connection: connection.execute(statement.values(values)).rowcount)


def _held_by(owner: str) -> ColumnElement[bool]:
    return and_(_c.owner == owner, _c.state == "leased")
