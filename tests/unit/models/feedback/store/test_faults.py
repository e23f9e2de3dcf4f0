"""The database away, locked, full, read-only or damaged: a clear error, nothing half done, and all well afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, StatementError

from models.feedback.store import Store, StoreUnavailable
from models.feedback.store.migrations import configuration
from tests.helpers.postgres import PostgresServer
from tests.helpers.store_fixtures import add, correction, fill_queue, prediction


def test_a_server_that_goes_away_and_comes_back(postgres: PostgresServer) -> None:
    store = Store.open(postgres.new_database())
    fill_queue(store, 2)
    postgres.stop()
    try:
        for call in (
            lambda: add(store, correction(text="lost")),
            lambda: store.predictions.log([prediction(1)]),
            lambda: store.feedback.counts("intent"),
            lambda: store.queue.lease("intent", "me", 1, 60),
            store.migrate,
        ):
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                call()
    finally:
        postgres.start()
    assert add(store, correction(text="kept")) == ["accepted"]
    assert store.feedback.counts("intent")["waiting"] == 3
    store.close()


def test_a_store_that_was_never_reached_works_later(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    in_the_way = tmp_path / "var"
    in_the_way.write_text("a file where a directory should be")
    sqlite = Store(f"sqlite:///{in_the_way}/feedback.db")
    server = Store(url)
    postgres.stop()
    try:
        for store in (server, sqlite):
            with pytest.raises(StoreUnavailable):
                store.migrate()
    finally:
        postgres.start()
    in_the_way.unlink()
    for store in (server, sqlite):
        store.migrate()
        assert add(store, correction(text="kept")) == ["accepted"]
        store.close()


def test_the_first_call_makes_the_tables(url: str) -> None:
    for call in (
        lambda store: store.feedback.counts("intent")["waiting"] == 0,
        lambda store: add(store, correction(text="a")) == ["accepted"],
    ):
        store = Store(url)
        assert call(store)
        store.database.write(lambda connection: command.downgrade(configuration(connection), "base"))
        store.close()


def test_a_first_call_that_fails_is_made_up_for_by_the_next(postgres: PostgresServer) -> None:
    store = Store(postgres.new_database())
    postgres.stop()
    try:
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            store.feedback.counts("intent")
    finally:
        postgres.start()
    assert add(store, correction(text="kept")) == ["accepted"]
    store.close()


def test_tables_that_were_removed_are_made_by_migrate_only(url: str) -> None:
    """Another database in the place of the one that was open is not taken for it unasked."""
    store = Store.open(url)
    store.database.write(lambda connection: command.downgrade(configuration(connection), "base"))
    with pytest.raises(StoreUnavailable, match="has no tables"):
        store.feedback.counts("intent")
    store.migrate()
    assert store.feedback.counts("intent")["waiting"] == 0
    store.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "feedback.db"


@pytest.fixture
def impatient(file: Path) -> Store:
    """A store that waits a twentieth of a second for others."""
    return Store.open(f"sqlite:///{file}", patience_s=0.05)


def test_a_lock_held_by_another(impatient: Store, file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            add(impatient, correction(text="a"))
        assert impatient.feedback.counts("intent")["waiting"] == 0
        other.execute("ROLLBACK")
    assert add(impatient, correction(text="a")) == ["accepted"]
    impatient.close()


def full(store: Store) -> Callable[[], None]:
    """Let the file grow no further; the returned function frees the disk."""
    with store.database.read() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    most = {"pages": pages + 8}

    @event.listens_for(store.database.engine, "checkout")
    def limit(driver: sqlite3.Connection, *_: object) -> None:
        driver.execute(f"PRAGMA max_page_count = {most['pages']}")

    return lambda: most.update(pages=2**30)


def test_a_full_disk(impatient: Store) -> None:
    free = full(impatient)
    accepted = 0

    def fill() -> None:
        nonlocal accepted
        for i in range(100):
            accepted += len(add(impatient, *[correction(text=f"{i} {j} " * 300) for j in range(10)]))

    with pytest.raises(StoreUnavailable, match="full"):
        fill()
    assert impatient.feedback.counts("intent")["waiting"] == accepted
    free()
    assert add(impatient, correction(text="room again")) == ["accepted"]
    assert impatient.feedback.counts("intent")["waiting"] == accepted + 1
    impatient.close()


def test_a_database_that_may_only_be_read(url: str) -> None:
    store = Store.open(url)
    if store.database.engine.dialect.name == "sqlite":
        on, off = "PRAGMA query_only = ON", "PRAGMA query_only = OFF"
    else:
        on = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
        off = "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"
    wanted = [on]

    @event.listens_for(store.database.engine, "checkout")
    def limit(driver: sqlite3.Connection, *_: object) -> None:
        driver.execute(wanted[0])
        driver.commit()

    with pytest.raises(StoreUnavailable, match="read-only"):
        add(store, correction(text="a"))
    assert store.feedback.counts("intent")["waiting"] == 0
    wanted[0] = off
    assert add(store, correction(text="a")) == ["accepted"]
    store.close()


def test_a_damaged_file(file: Path) -> None:
    file.write_bytes(b"this is no database, and longer than the header that says so" * 99)
    with pytest.raises(StoreUnavailable, match="not a database"):
        Store.open(f"sqlite:///{file}")


def test_a_fault_of_the_program_is_not_called_an_outage(url: str) -> None:
    store = Store.open(url)
    with pytest.raises(DBAPIError) as raised:
        store.database.write(lambda connection: connection.execute(text("SELEC :x"), {"x": "what a user wrote"}))
    assert "what a user wrote" not in str(raised.value)
    with pytest.raises(StatementError, match="without its zone"):
        store.predictions.expire(prediction(1).at.replace(tzinfo=None))
    assert add(store, correction(text="a")) == ["accepted"]
    store.close()
