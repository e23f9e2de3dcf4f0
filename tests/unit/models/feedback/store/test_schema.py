"""Migrations, and what importing the store costs a server."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from models.feedback.store import Store, StoreTooNew
from models.feedback.store.migrations import configuration
from models.feedback.store.schema import HEAD, metadata
from tests.helpers.command import ROOT
from tests.helpers.store_fixtures import fill_queue


def test_opening_again_changes_nothing(store: Store, url: str) -> None:
    fill_queue(store, 1)
    again = Store.open(url)
    assert again.counts("intent")["waiting"] == 1
    again.close()


def test_the_migrations_make_the_tables(url: str) -> None:
    store = Store.open(url)
    with store.read() as connection:
        assert ScriptDirectory.from_config(configuration()).get_current_head() == HEAD
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.write(lambda connection: command.downgrade(configuration(connection), "base"))
    with store.read() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    store.migrate()
    fill_queue(store, 1)
    store.close()


def test_an_older_flywheel_does_not_write_to_a_newer_database(store: Store, url: str) -> None:
    store.write(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(StoreTooNew, match="schema 9999"):
        Store.open(url)


def test_a_server_that_finds_its_tables_loads_no_migrations(store: Store, url: str) -> None:
    program = f"import sys; from models.feedback.store import Store; Store.open({url!r}).close(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "sqlalchemy" in loaded
    assert loaded.isdisjoint({"alembic", "mako", "numpy", "torch", "transformers", "mlflow", "sklearn", "pandas"})
