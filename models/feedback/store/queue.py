"""The queue of samples to learn: leased to one run at a time, then settled or given back."""

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
_UNLEASED = {"owner": None, "leased_until": None}
SettledState = Literal["used", "quarantined", "dropped", "dead"]


class DeadLetter(NamedTuple):
    """A sample that was part of too many failed attempts, and the reason of the last failure."""

    sample: Sample
    reason: str


class Queue:
    """Part of a `Store`: the queue of samples to learn."""

    def __init__(self, database: Database):
        self._database = database

    def lease(self, task: str, owner: str, limit: int, seconds: float) -> list[Sample]:
        """Lease the oldest `limit` waiting samples to `owner` for `seconds`; no other owner gets them meanwhile.

        Samples whose lease has expired count as waiting.
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
        """Extend the leases of `owner` to `seconds` from now. How many it still holds."""
        until = self._database.clock() + timedelta(seconds=seconds)
        statement = update(feedback).where(_held_by(owner)).values(leased_until=until)
        return self._database.write(lambda connection: connection.execute(statement).rowcount)

    def not_held(self, owner: str, ids: Collection[int]) -> set[int]:
        """Those of `ids` that `owner` no longer holds: erased, their consent withdrawn, or leased to another owner."""
        held: set[int] = set()
        with self._database.read() as connection:
            for some in chunks(sorted(ids)):
                held |= set(connection.scalars(select(_c.id).where(_held_by(owner), _c.id.in_(some))))
        return set(ids) - held

    def settle(self, owner: str, states: Mapping[int, tuple[SettledState, str | None]]) -> int:
        """Set the final state and reason of leased samples, by id, in one transaction. How many were changed.

        A sample that `owner` no longer holds, because its lease expired and another run took it, is not changed.
        """
        ids_by_state: dict[tuple[SettledState, str | None], list[int]] = defaultdict(list)
        for id_, state_and_reason in states.items():
            ids_by_state[state_and_reason].append(id_)

        def write(connection: Connection) -> int:
            changed = 0
            for (state, reason), ids in ids_by_state.items():
                for some in chunks(sorted(ids)):
                    statement = update(feedback).where(_held_by(owner), _c.id.in_(some))
                    changed += connection.execute(
                        statement.values(_UNLEASED | {"state": state, "reason": reason})
                    ).rowcount
            return changed

        return self._database.write(write)

    def give_back(
        self, owner: str, *, reason: str, failed: Collection[int] = (), max_attempts: int = 1
    ) -> dict[str, int]:
        """Return all samples that `owner` holds to the queue, with `reason`. How many are `waiting`, and `dead`.

        Samples in `failed` were part of a failed attempt, which is counted: after `max_attempts` of these, a sample
        becomes a dead letter.
        """

        def write(connection: Connection) -> dict[str, int]:
            dead = 0
            for some in chunks(sorted(failed)):
                of_failed = update(feedback).where(_held_by(owner), _c.id.in_(some))
                connection.execute(of_failed.values(attempts=_c.attempts + 1))
                too_often = of_failed.where(_c.attempts >= max_attempts)
                dead += connection.execute(too_often.values(_UNLEASED | {"state": "dead", "reason": reason})).rowcount
            rest = update(feedback).where(_held_by(owner)).values(_UNLEASED | {"state": "waiting", "reason": reason})
            return {"dead": dead, "waiting": connection.execute(rest).rowcount}

        return self._database.write(write)

    def dead_letters(self, task: str) -> list[DeadLetter]:
        """Samples that were part of too many failed attempts, oldest first."""
        query = samples_where(_c.task == task, _c.state == "dead").order_by(_c.at, _c.id)
        with self._database.read() as connection:
            return [DeadLetter(to_sample(row), row.reason or "") for row in connection.execute(query)]

    def requeue(self, task: str) -> int:
        """Return the task's dead letters to the queue, with their attempts reset to 0. How many."""
        statement = update(feedback).where(_c.task == task, _c.state == "dead")
        values = {"state": "waiting", "attempts": 0, "reason": None}
        return self._database.write(lambda connection: connection.execute(statement.values(values)).rowcount)


def _held_by(owner: str) -> ColumnElement[bool]:
    return and_(_c.owner == owner, _c.state == "leased")
