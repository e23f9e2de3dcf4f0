"""SQLite databases of a home: copied while others write to them, and MLflow's moved to another path."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from models.home import mlflow_artifacts

_PAGES = 2048  # copied at a time, 8 MB
_BUSY_TIMEOUT_S = 30.0
# Columns of MLflow's tables that have an absolute path of an artifact.
_ARTIFACT_COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}


def copy_database(source: Path, target: Path, report: Callable[[int, int], None]) -> None:
    """Copy an SQLite database, as it is at one moment, to a new file, by SQLite's online backup.

    The feedback store's writers do not wait: a write-ahead log serves readers and a writer at once. MLflow's, which
    has none, do. `report` gets bytes: done, of how many. Raises sqlite3.Error.
    """
    with closing(_open(source)) as reading, closing(sqlite3.connect(target)) as writing:
        page = reading.execute("PRAGMA page_size").fetchone()[0]
        # One transaction for all steps: else SQLite begins anew whenever another process has written.
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reading.backup(
            writing,
            pages=_PAGES,
            sleep=0,
            progress=lambda _, remaining, total: report((total - remaining) * page, total * page),
        )
        writing.execute("PRAGMA journal_mode = DELETE")  # one file; the store turns its log on again when it opens it


def schema_revision(database: Path) -> str | None:
    """Alembic's revision of an SQLite database; None without one."""
    with closing(_open(database)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            row = None
    return None if row is None else str(row[0])


def move_artifacts(mlflow_database: Path, new: str) -> None:
    """Let MLflow's database name the artifacts of a home below the URI `new`, whichever home they were in.

    MLflow keeps absolute paths: else a restored home would read and write the artifacts of the one it is a copy of.
    Raises sqlite3.Error.
    """
    with closing(sqlite3.connect(mlflow_database, timeout=_BUSY_TIMEOUT_S)) as connection, connection:
        known = {table: _columns(connection, table) for table in _ARTIFACT_COLUMNS}
        if not {"name", "artifact_location"} <= known["experiments"]:
            return
        found = connection.execute("SELECT name, artifact_location FROM experiments").fetchall()
        end = f"/{mlflow_artifacts(Path()).name}/"
        # The experiment of a task lies in a folder of its name (models/releases/registry.py).
        homes = {place.removesuffix(name) for name, place in found if place and place.endswith(f"{end}{name}")}
        for old in (home for home in homes if home.startswith("file:")):
            for table, columns in _ARTIFACT_COLUMNS.items():
                for column in known[table].intersection(columns):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (f"{new}/", len(old) + 1, len(old), old),
                    )


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _open(database: Path) -> sqlite3.Connection:
    """A connection that does not create the file, and begins no transaction by itself."""
    return sqlite3.connect(
        f"file:{quote(str(database.resolve()))}?mode=rw", uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None
    )
