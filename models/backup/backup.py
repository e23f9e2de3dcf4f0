"""Backup of a home while it serves, learns and is written to. What is copied when is what makes it consistent.

1. Release files and outboxes of the audit log, under the locks of moves.
2. Bundles and checkpoints, which never change once they are in place, then all other files.
3. The feedback store, then MLflow's database, each as it is at one moment.

What comes later may know more than what came earlier, never less: a release names versions that are there, and the
store knows what they were trained on. Corrections that only a version after the backup has learned wait again
(`SampleLineage.reconcile`). docs/decisions/0053-backup.md
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from export.machine import flywheel_version
from models.backup.archive import ArchiveWriter, BackupError, Header
from models.backup.contents import VERSIONS, files_of
from models.backup.databases import copy_database, schema_revision
from models.disk_errors import is_full
from models.home import (
    audit_outbox_file,
    feedback_database,
    mlflow_database,
    release_file,
)
from models.releases.release import Release, ReleaseError, one_move_at_a_time, read_release

Report = Callable[[str, int, int], None]
"""called with what is done now, and bytes: done, of how many"""

_SPARE_BYTES = 16 << 20


@dataclass
class BackupResult:
    """A finished backup: its file, size, and what an operator should know of it."""

    archive: Path
    size: int
    files: int
    notes: list[str] = field(default_factory=list)


def back_up(
    home: Path,
    store_url: str,
    destination: Path,
    report: Report,
    *,
    small: bool = False,
    mlflow_server: str | None = None,
) -> BackupResult:
    """Write an archive of the home to `destination`, a new file, or a folder in which one is made.

    The file appears when it is complete and on the disk; only its owner may read it. `small` leaves out MLflow's
    artifacts, and checkpoints of versions that no release names. `store_url` is the feedback store's: PostgreSQL is not
    copied. Raises BackupError, OSError.
    """
    _check_home(home)
    started = datetime.now(UTC)
    if destination.is_dir():
        destination = destination / f"flywheel-{started:%Y%m%dT%H%M%SZ}.tar"
    if destination.exists():
        raise BackupError(f"{destination} exists already. Give another name.")
    if home.resolve() in destination.resolve().parents:
        raise BackupError(f"{destination} lies in the home that is backed up. Give a place outside, on another disk.")
    job = _Backup(home, _store_file(home, store_url), report, small, mlflow_server)
    try:
        with _own_folder(destination) as folder:
            job.check_room(folder)
            draft = folder / "archive"
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                files = job.write(ArchiveWriter(file, job.header(started)), folder)
                file.flush()
                os.fsync(file.fileno())
            size = draft.stat().st_size
            if destination.exists():
                raise BackupError(f"{destination} exists already. Give another name.")
            os.rename(draft, destination)
            _sync_folder(destination.parent)
    except (OSError, sqlite3.Error) as error:
        if is_full(error):
            raise BackupError(
                f"{destination.parent} has no room for the backup, which needs "
                f"{job.total / 1e9:.1f} GB. Make room there, or give another place. No backup was made."
            ) from error
        if isinstance(error, sqlite3.Error):
            where = f"from {home} to {destination.parent}"
            raise BackupError(f"A database cannot be copied {where}: {error}. No backup was made.") from error
        raise
    return BackupResult(destination, size, files, job.notes)


@dataclass
class _Backup:
    home: Path
    store: Path | None
    """None when it is in PostgreSQL"""
    report: Report
    small: bool
    mlflow_server: str | None
    notes: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0
    stage: str = "reading the home"

    def header(self, started: datetime) -> Header:
        return Header(
            flywheel=flywheel_version(),
            started=started,
            home_mode=self.home.stat().st_mode & 0o777,
            small=self.small,
            store="postgresql" if self.store is None else "sqlite",
            schema_revision=schema_revision(self.store) if self.store is not None and self.store.is_file() else None,
        )

    def check_room(self, folder: Path) -> None:
        """Estimate the size, and refuse at once where there is less room."""
        databases = sum(path.stat().st_size for path in self._databases() if path.is_file())
        files = sum(
            path.stat().st_size for _, path in files_of(self.home, self._releases(), small=self.small) if path.is_file()
        )
        self.total = files + 2 * databases  # a database is copied twice: out of the home, and into the archive
        free = shutil.disk_usage(folder).free
        if free < self.total + _SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, archive: ArchiveWriter, folder: Path) -> int:
        """Write the files; their number."""
        releases = self._add_moves(archive)
        self._add_files(archive, releases)
        self._check_releases(archive, releases)
        self._add_databases(archive, folder)
        archive.finish()
        self.total = max(self.done, 1)
        self._advance(0)
        return len(archive.names())

    def _add_moves(self, archive: ArchiveWriter) -> list[Release]:
        """What serves, and the moves that the audit log does not have yet, at one moment of each task."""
        releases = []
        for task in (release.task for release in self._releases()):
            with one_move_at_a_time(self.home, task):
                releases.append(read_release(self.home, task))
                for path in (release_file(self.home, task), audit_outbox_file(self.home, task)):
                    with suppress(FileNotFoundError):
                        mode = path.stat().st_mode & 0o777
                        archive.add_bytes(path.relative_to(self.home).as_posix(), path.read_bytes(), mode)
        return releases

    def _releases(self) -> list[Release]:
        found = []
        for path in sorted(release_file(self.home, "_").parent.glob("*.json")):
            try:
                found.append(read_release(self.home, path.stem))
            except ReleaseError as error:
                raise BackupError(f"{error} No backup was made.") from error
        return found

    def _add_files(self, archive: ArchiveWriter, releases: list[Release]) -> None:
        for name, path in files_of(self.home, releases, small=self.small):
            parts = Path(name).parts
            self.stage = parts[0]
            if self.store is not None and path.parent == self.store.parent and path.name.startswith(self.store.name):
                continue  # a store in the home under another name: copied later, as a database
            if archive.add(name, path, self._advance):
                continue
            folder = "/".join(parts[:3]) if parts[0] in VERSIONS and len(parts) > 3 else name
            archive.forget(folder)
            note = f"{folder} was deleted meanwhile, and is not in the backup"
            if note not in self.notes:
                self.notes.append(note)

    def _check_releases(self, archive: ArchiveWriter, releases: list[Release]) -> None:
        names = archive.names()
        for release in releases:
            for number, bundle in release.versions.items():
                if f"{bundle}/manifest.json" not in names:
                    raise BackupError(
                        f"{release.task}: the release names version {number}, whose bundle is not in the home. "
                        f"Promote another version first (flywheel promote {release.task} VERSION). No backup was made."
                    )

    def _databases(self) -> list[Path]:
        return [
            *([self.store] if self.store is not None else []),
            *([mlflow_database(self.home)] if self.mlflow_server is None else []),
        ]

    def _add_databases(self, archive: ArchiveWriter, folder: Path) -> None:
        names = (feedback_database(Path()).name, mlflow_database(Path()).name)
        for database in self._databases():
            if not database.is_file():
                continue
            name = names[1] if database == mlflow_database(self.home) else names[0]
            self.stage, before = name, self.done
            copy = folder / name

            def advance(done: int, _: int, before: int = before) -> None:
                self.done = before
                self._advance(done)

            copy_database(database, copy, advance)
            archive.add(name, copy, self._advance, mode=database.stat().st_mode & 0o777)
            copy.unlink()

    def _advance(self, count: int) -> None:
        self.done += count
        self.report(self.stage, self.done, max(self.total, self.done))


def _check_home(home: Path) -> None:
    if not release_file(home, "_").parent.is_dir():
        raise BackupError(f"{home} has no releases: it is not a home, or nothing was served from it yet.")


def _store_file(home: Path, url: str) -> Path | None:
    """The file of an SQLite store; None for PostgreSQL."""
    from sqlalchemy import make_url

    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(parsed.database) if parsed.database else feedback_database(home)


@contextmanager
def _own_folder(destination: Path) -> Iterator[Path]:
    """A folder beside the destination for what is not complete, readable by its owner only; it ends with the block.

    Those of backups that were killed are deleted: nobody holds their locks.
    """
    if not destination.parent.is_dir():
        raise BackupError(f"{destination.parent} is not a folder. Create it first, or mount the disk.")
    prefix = ".flywheel-backup-"
    for old in destination.parent.glob(f"{prefix}*"):
        with suppress(OSError), _locked(old):
            shutil.rmtree(old)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=destination.parent))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises BlockingIOError when another process does."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
