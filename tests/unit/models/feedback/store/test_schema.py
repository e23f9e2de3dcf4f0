"""Migrations, and what importing the store costs a server."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, bindparam, inspect, text

from models.feedback.store import AuditEntry, Store, StoreTooNew
from models.feedback.store.migrations import configuration
from models.feedback.store.schema import HEAD, Moment, metadata
from tests.helpers.command import ROOT
from tests.helpers.store_fixtures import NOW, add, correction, fill_queue, made, prediction


def test_opening_again_changes_nothing(store: Store, url: str) -> None:
    fill_queue(store, 1)
    again = Store.open(url)
    assert again.feedback.counts("intent")["waiting"] == 1
    again.close()


def test_the_migrations_make_the_tables(url: str) -> None:
    store = Store.open(url)
    with store.database.read() as connection:
        assert ScriptDirectory.from_config(configuration()).get_current_head() == HEAD
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.database.write(lambda connection: command.downgrade(configuration(connection), "base"))
    with store.database.read() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    store.migrate()
    fill_queue(store, 1)
    store.close()


def test_a_database_of_the_first_schema_is_brought_on(url: str) -> None:
    """The audit log keeps its entries, whose `who` and `why` have other names now; requests start empty."""
    columns, values = "at, task, action, version, who, why, detail", "'intent', 'promote', :version, 'me', 'better'"
    old = text(f"INSERT INTO audit_log ({columns}) VALUES (:at, {values}, :detail)")

    def at_first(connection: Connection) -> None:
        command.downgrade(configuration(connection), "base")
        command.upgrade(configuration(connection), "0001")
        typed = old.bindparams(bindparam("at", type_=Moment))
        connection.execute(typed, [{"at": NOW, "version": version, "detail": '{"a": 1}'} for version in ("1", "2")])

    store = Store.open(url)
    store.database.write(at_first)
    store.close()
    store = Store(url)  # the first call migrates
    assert store.audit.entries("intent") == [
        AuditEntry(NOW, "intent", "promote", version, "me", "better", {"a": 1}) for version in ("2", "1")
    ]
    store.audit.append("intent", "rollback", None, "me", "worse")
    assert [entry.action for entry in store.audit.entries("intent")] == ["rollback", "promote", "promote"]
    with store.database.read() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.close()


def test_whose_data_an_older_ranking_is_becomes_a_column(url: str) -> None:
    """Of requests that named another user than the one who asked, who could not have it erased."""
    rows = [("shop", {"user": {"id": "ann"}}), ("ann", {"user": {"id": "ann"}}), ("ann", {"user": {"id": None}}),
            ("ann", ["a text"]), (None, {"user": {"id": "ann"}})]  # fmt: skip
    store = Store.open(url)
    asked = [prediction(n, user=user, input=input_) for n, (user, input_) in enumerate(rows)]
    store.predictions.log(asked)
    store.database.write(lambda connection: command.downgrade(configuration(connection), "0002"))
    store.close()
    store = Store(url)  # the first call migrates
    found = {row.id: row.subject for row in store.predictions.latest("intent", NOW, 9)}
    assert [found[row.id] for row in asked] == ["ann", None, None, None, None]
    with store.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.close()


def test_events_that_were_stored_without_a_value_still_read(url: str) -> None:
    request = {"candidates": [{"id": "m", "text": "mug"}]}
    store = Store.open(url)
    store.predictions.log([prediction(1, task="shop", input=request, output=[{"id": "m", "score": 0.7}])])
    given = {"task": "shop", "label": None, "event": "click", "item_id": "m"}
    assert add(store, correction(1, **given)) == ["accepted"]
    store.database.write(lambda connection: command.downgrade(configuration(connection), "0003"))
    store.close()
    store = Store(url)  # the first call migrates
    assert list(store.feedback.events("shop", [made(1)]).values()) == [[("m", "click", None)]]
    assert add(store, correction(1, **given), correction(1, **given | {"event": "rating"}, value=3.0)) == [
        "duplicate", "accepted"
    ]  # fmt: skip
    store.close()


def test_an_older_flywheel_does_not_write_to_a_newer_database(store: Store, url: str) -> None:
    store.database.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(StoreTooNew, match="schema 9999"):
        Store.open(url)
    later = Store(url)
    with pytest.raises(StoreTooNew, match="schema 9999"):
        later.feedback.counts("intent")
    with pytest.raises(StoreTooNew, match="schema 9999"):
        later.audit.append("intent", "promote", "1", "me", "better")
    later.close()


def test_a_server_that_finds_its_tables_loads_no_migrations(store: Store, url: str) -> None:
    program = f"import sys; from models.feedback.store import Store; Store.open({url!r}).close(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "sqlalchemy" in loaded
    assert loaded.isdisjoint({"alembic", "mako", "numpy", "torch", "transformers", "mlflow", "sklearn", "pandas"})
