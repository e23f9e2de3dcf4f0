"""One server for each home: the controllers of two would move the same releases (docs/decisions/0030-hosts.md).

The lock is the kernel's, on an open file, so it ends with its process however that ends. What the file says about its
holder is for a person to read. Commands such as `flywheel promote` and `flywheel train` need no such lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import orjson

from models.home import restoring_folder, server_lock

# A network file system without locks; EBADF: NFS, with a file that could be opened for reading only.
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)

_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)

_CHOOSE = "Choose another home with FLYWHEEL_HOME=... or `home` in flywheel.yaml"


class HomeLockError(Exception):
    """Raised when another server uses the home, or the home cannot be written; the text says which, and what to do."""


@contextmanager
def lock_home(home: Path, url: str, *, restoring: bool = False) -> Iterator[bool]:
    """Hold the lock of a server that will listen at `url`, until the block ends or the process does.

    A restore that was interrupted left a home with some of its files, which only another restore may lock.

    Yields whether the home is locked. It is not where the file system has no locks, or where the lock's file is missing
    and cannot be created: a home that is read-only or full still serves. Raises HomeLockError.
    """
    path = server_lock(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = _open(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise HomeLockError(f"The home {home} is not a directory, or lies below a file. {_CHOOSE}.") from error
    except OSError as error:
        raise HomeLockError(
            f"The home {home} cannot be written: {error.strerror}. "
            f"{_CHOOSE}, or give user id {os.getuid()} the right to write there."
        ) from error
    if file is None:
        yield False
        return
    with file:
        locked = _try_lock(file, home)
        if not restoring and restoring_folder(home).exists():
            raise HomeLockError(f"A restore into {home} was interrupted. Empty that folder and restore again.")
        _write_holder(file, url)
        yield locked


def _open(path: Path) -> IO[bytes] | None:
    """The lock's file, read-only where it cannot be written; None if it cannot be created in a home that is there.

    Unbuffered: what a full disk refused to take would otherwise be written again, and fail, when the file is closed.
    """
    try:
        return path.open("a+b", buffering=0)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE or not path.parent.is_dir():
            raise
    with suppress(OSError):
        return path.open("rb", buffering=0)
    return None


def _try_lock(file: IO[bytes], home: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HomeLockError(
            f"The home {home} is in use by {_holder(file)}. Stop that server first. {_CHOOSE}."
        ) from None
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _holder(file: IO[bytes]) -> str:
    try:
        file.seek(0)
        found = orjson.loads(file.read())
        return "the server with process id {pid} on {host}, at {url}, since {since}".format(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return "another server"


def _write_holder(file: IO[bytes], url: str) -> None:
    """Write who holds the lock. A full disk does not prevent a start: then the error of a second server says less."""
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname().encode(errors="replace").decode(),
        "url": url,
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    with suppress(OSError):  # UnsupportedOperation, of a file opened for reading, is one
        file.truncate(0)
        file.write(orjson.dumps(holder))
