"""Why a database is unavailable, in words for its operator."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

LOCKED = "it was locked for too long"
_SQLITE_REASONS = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_FULL: "its disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_PERM: "its file may not be opened",
    sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    sqlite3.SQLITE_IOERR: "its disk fails",
    sqlite3.SQLITE_PROTOCOL: LOCKED,
    sqlite3.SQLITE_CORRUPT: "its file is damaged",
    sqlite3.SQLITE_NOTADB: "its file is not a database",
}
_POSTGRES_REASONS = {
    "53100": "its disk is full",
    "25006": "it is read-only",
    "55P03": LOCKED,
    "57014": LOCKED,
    "40P01": LOCKED,
    "42P01": "it has no tables any more; a restart makes them",
}
DEADLOCKS = {"40001", "40P01"}


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's error code, if the error is from PostgreSQL."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def reason_of(error: BaseException) -> str | None:
    """Why the database is unavailable, or None if the error is a bug in the program."""
    if isinstance(error, PoolTimeout):
        return "all its connections are busy"
    if isinstance(error, OSError):
        return f"{error.strerror or error}"
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        if str(cause).startswith("no such table"):
            return _POSTGRES_REASONS["42P01"]
        return _SQLITE_REASONS.get(code & 0xFF) if code is not None else None
    if (state := sqlstate(error)) in _POSTGRES_REASONS:
        return _POSTGRES_REASONS[state]
    return "it cannot be reached" if isinstance(error, (OperationalError, InterfaceError, InternalError)) else None
