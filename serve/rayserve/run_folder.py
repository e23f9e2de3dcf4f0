"""The folder of one run: sockets, HAProxy's configuration, reports of the processes. In memory where possible.

HAProxy's configuration is written anew whenever a replica starts: on a full disk, HAProxy would not learn of the one
that replaces a dead replica.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serve.rayserve.start_error import StartError

_MEMORY = Path("/dev/shm")
_PREFIX, _LOCK = "fw-", "lock"  # short: the path of a socket has at most 107 bytes
_MIN_AGE_S = 60.0
_MIN_FREE_BYTES = 4 << 20  # many times what a run writes


@contextmanager
def run_folder(fallback: Path) -> Iterator[Path]:
    """A new folder, in memory or else in `fallback`, deleted at the end. Raises StartError when neither takes one."""
    parent = _MEMORY if _has_room(_MEMORY) else fallback
    for folder in parent.glob(f"{_PREFIX}*") if parent == _MEMORY else ():
        _remove_if_left(folder)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise StartError(
            f"Cannot create a folder for sockets in {parent}: {error.strerror or error}. "
            "Make room there, or name another folder with TMPDIR=..."
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with this process, however that ends
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _has_room(folder: Path) -> bool:
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK) and room.f_bavail * room.f_frsize >= _MIN_FREE_BYTES


def _remove_if_left(folder: Path) -> None:
    """Delete the folder if its server was killed: nobody holds its lock, and it is not one that has just been made."""
    with suppress(OSError), (folder / _LOCK).open("r+") as lock:
        if time.time() - folder.stat().st_mtime < _MIN_AGE_S:
            return
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
