"""Restoration of a backup into an empty home. The home has all of it, or nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from models.backup.archive import ArchiveReader, BackupError, Header, open_archive
from models.backup.databases import move_artifacts
from models.disk_errors import is_full
from models.feedback.store.schema import HEAD
from models.home import mlflow_artifacts, mlflow_database, release_file, restoring_folder, server_lock

Report = Callable[[int, int], None]
"""called with bytes: done, of how many"""

_SPARE_BYTES = 16 << 20


def check_is_empty(home: Path) -> None:
    """Raises BackupError when the home has files: what is in it must not be lost, or mixed with a backup."""
    ours = {server_lock(home).name, restoring_folder(home).name, "lost+found"}
    if home.is_dir() and (found := sorted({path.name for path in home.iterdir()} - ours)):
        raise BackupError(
            f"{home} is not empty: it has {', '.join(found[:3])}{', ...' if found[3:] else ''}. "
            "Restore into a new folder with --home, or move that one away."
        )


def restore(archive: Path, home: Path, report: Report) -> Header:
    """Restore the backup at `archive` into an empty home, which the caller has locked. Raises BackupError, OSError.

    Every file is checked against its sha256 before the first one is put in its place; releases come last.
    """
    check_is_empty(home)
    with open_archive(archive) as reader:
        _check_schema(reader.header, archive)
        if shutil.disk_usage(home).free < reader.size + _SPARE_BYTES:
            raise _no_room(home, reader)
        drafts = restoring_folder(home)
        shutil.rmtree(drafts, ignore_errors=True)  # of a restore that was killed
        try:
            drafts.mkdir(mode=0o700)
            _extract(reader, drafts, report)
            if mlflow_database(drafts).is_file():
                move_artifacts(mlflow_database(drafts), mlflow_artifacts(home).resolve().as_uri())
        except BaseException as error:
            shutil.rmtree(drafts, ignore_errors=True)
            if is_full(error):
                raise _no_room(home, reader) from error
            if isinstance(error, sqlite3.Error):
                raise BackupError(f"{archive}: MLflow's database cannot be used: {error}.") from error
            raise
        with suppress(PermissionError):  # of a mounted folder
            home.chmod(home.stat().st_mode & reader.header.home_mode)
        _put_in_place(drafts, home)
        return reader.header


def _extract(reader: ArchiveReader, folder: Path, report: Report) -> None:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(done, reader.size)

    for name in reader.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        reader.extract(name, target, advance)


def _put_in_place(drafts: Path, home: Path) -> None:
    """Move everything to its place. While the folder of drafts is there, no server starts (serve/home_lock.py)."""
    releases = release_file(drafts, "_").parent
    for entry in sorted(drafts.iterdir(), key=lambda entry: (entry == releases, entry.name)):
        os.rename(entry, home / entry.name)
    drafts.rmdir()
    handle = os.open(home, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_schema(header: Header, archive: Path) -> None:
    revision = header.schema_revision
    if revision is not None and revision > HEAD:  # four digits
        raise BackupError(
            f"{archive} has a feedback store of schema {revision}, made by Flywheel {header.flywheel}; this one knows "
            f"up to {HEAD}. Update it before you restore."
        )


def _no_room(home: Path, reader: ArchiveReader) -> BackupError:
    return BackupError(
        f"{home} has no room for the backup, which needs {reader.size / 1e9:.1f} GB. Make room there, or give another "
        "place with --home. Nothing was restored."
    )
