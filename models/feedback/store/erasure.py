"""Erased users, and which rows their erasure covers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, select

from models.feedback.store.database import chunks
from models.feedback.store.schema import clean, erased

_ERASED = select(erased.c.user, erased.c.at).where(erased.c.user.in_(bindparam("users", expanding=True)))
# Rows made before an erasure may still be in a buffer when it happens, and other machines' clocks may be ahead.
_MARGIN = timedelta(minutes=5)


def erased_users(connection: Connection, users: Iterable[str | None]) -> dict[str, datetime]:
    """Those of `users` who were erased, with the time of the erasure."""
    asked = sorted({clean(user) for user in users if user is not None})
    found: dict[str, datetime] = {}
    for some in chunks(asked):
        found |= {row.user: row.at for row in connection.execute(_ERASED, {"users": some})}
    return found


def is_erased(erased_at: Mapping[str, datetime], user: str | None, at: datetime) -> bool:
    """Whether an erasure covers a row of `user` made at `at`. Rows made after it are not covered."""
    moment = erased_at.get(clean(user)) if user is not None else None
    return moment is not None and at <= moment + _MARGIN
