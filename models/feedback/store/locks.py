"""Named locks, which expire when their owner does not renew them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, not_, or_, select

from models.feedback.store.database import Database
from models.feedback.store.queries import is_over
from models.feedback.store.schema import locks


class Locks:
    """Part of a `Store`: one owner at a time for each name."""

    def __init__(self, database: Database):
        self._database = database

    def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Acquire the lock, or renew it if `owner` holds it; False if another owner holds it and it has not expired."""
        now = self._database.clock()
        values = {"owner": owner, "until": now + timedelta(seconds=seconds)}
        statement = (
            self._database.insert(locks)
            .values(name=name, **values)
            .on_conflict_do_update(
                index_elements=["name"], set_=values, where=or_(is_over(locks.c.until, now), locks.c.owner == owner)
            )
            .returning(locks.c.name)
        )
        return self._database.write(lambda connection: connection.execute(statement).first() is not None)

    def is_held(self, name: str) -> bool:
        """Whether someone holds the lock, and it has not expired."""
        query = select(locks.c.name).where(locks.c.name == name, not_(is_over(locks.c.until, self._database.clock())))
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def release(self, name: str, owner: str) -> bool:
        """Release the lock; False if `owner` no longer held it."""
        statement = delete(locks).where(locks.c.name == name, locks.c.owner == owner)
        return self._database.write(lambda connection: connection.execute(statement).rowcount > 0)
