"""Feedback on its way out: leased to one trainer at a time, and settled, given back or taken back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, update

from models.samples import Sample
from models.store.database import Database, chunks
from models.store.reading import is_waiting, samples_where, to_sample
from models.store.schema import feedback

_c = feedback.c
_FREE = {"owner": None, "leased_until": None}
Settled = Literal["used", "quarantined", "dropped", "dead"]


class DeadLetter(NamedTuple):
    """A sample that was given back too often, and why the last time."""

    sample: Sample
    reason: str


class Leases(Database):
    def lease(self, task: str, owner: str, limit: int, seconds: float) -> list[Sample]:
        """Give `owner` the oldest `limit` waiting samples for `seconds`; nobody else gets them meanwhile.

        Samples whose lease has expired are waiting again. Each lease is an attempt, counted in the sample.
        """
        now = self.clock()
        query = (
            samples_where(_c.task == task, is_waiting(now))
            .order_by(_c.at, _c.id)
            .limit(limit)
            .with_for_update(skip_locked=True, of=feedback)
        )
        leased = {
            "state": "leased", "owner": owner, "leased_until": now + timedelta(seconds=seconds),
            "attempts": _c.attempts + 1,
        }  # fmt: skip

        def take(connection: Connection) -> list[Sample]:
            rows = connection.execute(query).all()
            for some in chunks([row.id for row in rows]):
                connection.execute(update(feedback).where(_c.id.in_(some)).values(leased))
            return [replace(to_sample(row), attempts=row.attempts + 1) for row in rows]

        return self.write(take)

    def renew(self, owner: str, seconds: float) -> int:
        """Let the leases of `owner` run for `seconds` from now; how many it still holds."""
        until = self.clock() + timedelta(seconds=seconds)
        statement = update(feedback).where(_held_by(owner)).values(leased_until=until)
        return self.write(lambda connection: connection.execute(statement).rowcount)

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

        return self.write(write)

    def give_back(self, owner: str, *, most_attempts: int, reason: str) -> dict[str, int]:
        """Return what `owner` holds to the queue, or to the dead letters what was leased `most_attempts` times.

        `reason` says what went wrong and is kept in both. Counts by state, `waiting` and `dead`.
        """

        def write(connection: Connection) -> dict[str, int]:
            dead = update(feedback).where(_held_by(owner), _c.attempts >= most_attempts)
            rest = update(feedback).where(_held_by(owner))
            return {
                "dead": connection.execute(dead.values(_FREE | {"state": "dead", "reason": reason})).rowcount,
                "waiting": connection.execute(rest.values(_FREE | {"state": "waiting", "reason": reason})).rowcount,
            }

        return self.write(write)

    def dead_letters(self, task: str) -> list[DeadLetter]:
        """What was given back too often, oldest first."""
        query = samples_where(_c.task == task, _c.state == "dead").order_by(_c.at, _c.id)
        with self.read() as connection:
            return [DeadLetter(to_sample(row), row.reason or "") for row in connection.execute(query)]


def _held_by(owner: str) -> ColumnElement[bool]:
    return and_(_c.owner == owner, _c.state == "leased")
