"""Connections, transactions and their errors; the same interface for SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models.feedback.store.schema import HEAD
from models.feedback.store.unavailable import DEADLOCKS, LOCKED, reason_of, sqlstate

T = TypeVar("T")
Observe = Callable[[str, float, bool], None]
"""called after each transaction: `read` or `write`, its seconds, and whether it failed with StoreUnavailable"""

_WRITES = "flywheel_writes"
# Keys of advisory locks: any numbers that no other program uses on the same PostgreSQL database.
_MIGRATING, _ERASING, _ABSORBING = 0x666C7901, 0x666C7902, 0x666C7903
_MAX_TRIES = 5
_BUSY_SLEEP_S = 0.001
_CHUNK = 500


class StoreError(Exception):
    """Base of the store's own exceptions."""


class StoreUnavailable(StoreError):
    """Raised when the database is unreachable, locked for too long, full or read-only: nothing was stored, and the
    same call may work later."""


class StoreTooNew(StoreError):
    """Raised when a newer Flywheel has migrated the database, so that this one must not write to it."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Slices short enough for one IN (...)."""
    return (values[i : i + _CHUNK] for i in range(0, len(values), _CHUNK))


class Database:
    """One database of this schema, shared by the parts of a `Store`. Threads may share it; each process opens its own.

    The first `read` or `write` migrates. `url`, `patience_s`, `clock` and `observe` are those of `Store`.
    """

    def __init__(
        self,
        url: str,
        *,
        patience_s: float = 10.0,
        clock: Callable[[], datetime] = utc_now,
        observe: Observe = lambda operation, seconds, failed: None,
    ):
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.clock = clock
        self._patience_s = patience_s
        self._observe = observe
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        self._is_migrated = False
        # Threads of one process queue for this lock, since SQLite's own waiting is sleep and retry.
        self._writer = threading.Lock()
        # Parameters are users' data: keep them out of error messages.
        self.engine = create_engine(
            parsed, hide_parameters=True, pool_pre_ping=True, pool_size=4, max_overflow=8, pool_timeout=patience_s,
            connect_args={"timeout": patience_s} if self._is_sqlite else _postgres_arguments(patience_s),
        )  # fmt: skip
        self._insert: Any
        if self._is_sqlite:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            self._insert = sqlite_insert
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", self._begin_sqlite)
        else:
            from sqlalchemy.dialects.postgresql import insert as postgres_insert

            self._insert = postgres_insert
            event.listen(self.engine, "connect", _prepare_postgres)

    def close(self) -> None:
        """Close the idle connections. The database still works, and opens them again."""
        self.engine.dispose()

    def migrate(self) -> None:
        """Bring the tables to the newest schema. Raises StoreUnavailable, or StoreTooNew."""
        with self._translated_errors():
            if self._is_sqlite:
                self._create_sqlite()
            with self._connection() as connection:
                is_newest = _revision(connection) == HEAD
            if not is_newest:
                self._write(self._migrate_to_head)
        self._is_migrated = True

    def _migrate_to_head(self, connection: Connection) -> None:
        if not self._is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATING})"))
        from models.feedback.store.migrations import upgrade

        if (revision := _revision(connection)) != HEAD and not upgrade(connection, revision):
            raise StoreTooNew(f"The feedback store has schema {revision}; this Flywheel knows up to {HEAD}: update it.")

    def _migrate_once(self) -> None:
        # Two threads may both call migrate: both check, and one migrates.
        if not self._is_migrated:
            self.migrate()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; writes on it are rolled back."""
        with self._observed("read"):
            self._migrate_once()
            with self._connection() as connection:
                yield connection

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction that is durable when this returns. `work` may run again after a deadlock."""
        with self._observed("write"):
            self._migrate_once()
            return self._write(work)

    @contextmanager
    def _observed(self, operation: str) -> Iterator[None]:
        began, failed = time.monotonic(), False
        try:
            yield
        except StoreUnavailable:
            failed = True
            raise
        finally:
            self._observe(operation, time.monotonic() - began, failed)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self._translated_errors(), self.engine.connect() as connection:
            yield connection

    def _write(self, work: Callable[[Connection], T]) -> T:
        for tries_left in reversed(range(_MAX_TRIES)):
            try:
                with self._writer_lock(), self._connection() as connection:
                    connection.execution_options(**{_WRITES: True})
                    with connection.begin():
                        return work(connection)
            except StoreUnavailable as error:
                if not tries_left or sqlstate(error.__cause__) not in DEADLOCKS:
                    raise
        raise AssertionError("unreachable")

    def insert(self, table: Table) -> Any:
        """An INSERT that supports ON CONFLICT, which SQLAlchemy implements per dialect."""
        return self._insert(table)

    def block_erasure(self, connection: Connection) -> None:
        """Block `Privacy.erase` until the transaction ends, so that what was read from `erased` stays true."""
        if not self._is_sqlite:  # SQLite has only one writer at a time
            connection.execute(text(f"SELECT pg_advisory_xact_lock_shared({_ERASING})"))

    def block_writers(self, connection: Connection) -> None:
        """Block writers that call `block_erasure` until the transaction ends."""
        if not self._is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ERASING})"))

    def absorb_alone(self, connection: Connection) -> None:
        """Block other callers of this until the transaction ends: those who count documents."""
        if not self._is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ABSORBING})"))

    def overwrite_deleted(self) -> None:
        """Rewrite SQLite's files without deleted rows. Blocks writers meanwhile: 50 MB took 2 s on two busy cores.

        `secure_delete` alone leaves copies in the free space of pages that were split or joined before the deletion,
        and so does the write-ahead log. PostgreSQL frees deleted rows for overwriting in autovacuum; its log and its
        backups are the operator's responsibility.
        """
        if not self._is_sqlite:
            return
        try:
            with self._translated_errors(), self._writer_lock():
                self._outside_transaction("VACUUM")
                if self._outside_transaction("PRAGMA wal_checkpoint(TRUNCATE)"):
                    raise StoreUnavailable("The feedback store is not available: a reader holds its write-ahead log.")
        except StoreUnavailable as error:
            raise StoreUnavailable(f"The rows are deleted, but their bytes may remain; do it again. {error}") from error

    def _begin_sqlite(self, connection: Connection) -> None:
        """Begin a transaction; a writer acquires the write lock at once, since upgrading a read lock fails when another
        writer has committed in between.

        Waits for other processes in short sleeps. SQLite's own sleeps grow to 100 ms, many times the duration of a
        transaction: two busy writers lost half of their time in them.
        """
        driver: Any = connection.connection.driver_connection
        if not connection.get_execution_options().get(_WRITES):
            driver.execute("BEGIN")
            return
        deadline = time.monotonic() + self._patience_s
        driver.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    driver.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if reason_of(error) != LOCKED or time.monotonic() > deadline:
                        raise
                    time.sleep(_BUSY_SLEEP_S)
        finally:
            driver.execute(f"PRAGMA busy_timeout = {int(1000 * self._patience_s)}")

    def _outside_transaction(self, statement: str) -> Any:
        """Run a statement that SQLite refuses within a transaction. The first value of its result, if any."""
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            row = driver.execute(statement).fetchone()
            return row[0] if row else None

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        if not self._is_sqlite:
            yield
            return
        if not self._writer.acquire(timeout=self._patience_s):
            raise StoreUnavailable("The feedback store is not available: it was locked for too long.")
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeout, OSError, sqlite3.Error) as error:
            reason = reason_of(error)
            if reason is None:
                raise
            raise StoreUnavailable(f"The feedback store is not available: {reason}.") from error

    def _create_sqlite(self) -> None:
        """Create the file's directory and set the journal mode, which is stored in the file."""
        if self.engine.url.database:
            Path(self.engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._patience_s
        while True:  # SQLite ignores its busy timeout when two processes change the mode
            try:
                self._outside_transaction("PRAGMA journal_mode = WAL")
                return
            except (OperationalError, sqlite3.OperationalError) as error:
                if reason_of(error) != LOCKED or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _prepare_sqlite(driver: sqlite3.Connection, _: object) -> None:
    driver.isolation_level = None  # `_begin_sqlite` begins transactions, not the driver
    driver.execute("PRAGMA synchronous = FULL")  # a commit has reached the disk when it returns
    driver.execute("PRAGMA secure_delete = ON")  # deleted bytes are overwritten


def _postgres_arguments(patience_s: float) -> dict[str, Any]:
    milliseconds = int(1000 * patience_s)
    return {
        "connect_timeout": max(2, int(patience_s)),
        "tcp_user_timeout": milliseconds,
        "application_name": "flywheel",
        "options": f"-c lock_timeout={milliseconds} -c statement_timeout={6 * milliseconds} -c timezone=UTC",
    }


def _prepare_postgres(driver: Any, _: object) -> None:
    # Commits must survive a crash even on a server with synchronous_commit off.
    driver.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    driver.commit()
