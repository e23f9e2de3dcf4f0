"""Which files of a home are copied: all but those named here, so that what a later Flywheel adds is not forgotten."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.backup.archive import BackupError
from models.home import mlflow_artifacts, restoring_folder
from models.releases.release import Release

VERSIONS = ("bundles", "checkpoints")
"""folders whose files never change once their version, in a folder of a folder of theirs, is there"""

# What is read first, or by SQLite, or says only what runs at this moment, or is made anew where it is missing.
_NOT_COPIED = {
    "releases", "audit", "work", "retraining", "training", "cache", "tmp", "lost+found", "server.lock",
    restoring_folder(Path()).name,
    *(f"{database}{end}" for database in ("feedback.db", "mlflow.db") for end in ("", "-wal", "-shm", "-journal")),
}  # fmt: skip
_DERIVED = {".packed", ".engines"}
# Locks, and drafts of processes that are writing, or were killed: `write_atomically`, the pseudonym key's.
_TRANSIENT = re.compile(r".*\.lock|\..+\.[0-9a-f]{8}|\.secret-.*")
_TOLD_TO_MLFLOW = ("training", ".mlflow")  # of a checkpoint: without them, the next training would tell MLflow again


def files_of(home: Path, releases: Sequence[Release], *, small: bool) -> list[tuple[str, Path]]:
    """Names in the archive and paths of the files to copy, versions first. The databases are not among them.

    `small` leaves out MLflow's artifacts, and checkpoints of versions that no release names. Raises BackupError.
    """
    found = [(path.relative_to(home).as_posix(), path) for path in _walk(home, set())]
    for name, _ in found:
        if not _is_utf8(name):
            raise BackupError(
                f"The name of a file in {home} is not UTF-8: {os.fsencode(name)!r}. Rename it. No backup was made."
            )
    if small:
        named = {(release.task, version) for release in releases for version in (*release.versions, release.previous)}
        found = [(name, path) for name, path in found if _is_in_small(Path(name).parts, named)]
    return sorted(found, key=lambda file: (file[0].split("/")[0] not in VERSIONS, file[0]))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_in_small(parts: tuple[str, ...], named: set[tuple[str, str | None]]) -> bool:
    """Whether a small backup has this file; `named` are the tasks and versions of releases."""
    if parts[0] == "checkpoints" and len(parts) > 3:
        return parts[1:3] in named or parts[3] in _TOLD_TO_MLFLOW
    return parts[0] != mlflow_artifacts(Path()).name


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The regular files below a home that are copied. Links are followed: bundles may lie on another disk."""
    try:
        found = folder.stat()
        entries = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile
        return
    if (found.st_dev, found.st_ino) in seen:
        return
    is_home = not seen
    seen.add((found.st_dev, found.st_ino))
    for entry in entries:
        if _TRANSIENT.fullmatch(entry.name) or entry.name in _DERIVED or (is_home and entry.name in _NOT_COPIED):
            continue
        if entry.is_dir():
            yield from _walk(entry, seen)
        elif entry.is_file():
            yield entry
