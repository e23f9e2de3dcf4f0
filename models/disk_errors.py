"""Errors of a disk as sentences for its operator: full, read-only, failing, or a place that may not be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_ROOM = (
    "Make room where the home (FLYWHEEL_HOME, ./var by default) and temporary files (TMPDIR) lie, or set another disk"
)
_WRITABLE = "Make it writable, or use another folder with FLYWHEEL_HOME=..."
_ACCESS = "Give this user access to it, or use another folder with FLYWHEEL_HOME=..."
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EROFS: _WRITABLE,
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EIO: "The disk fails: look into the system's log",
    errno.ESTALE: "The network disk went away: mount it again",
    errno.ENOTDIR: "A file is where a folder is needed: move it away, or use another folder with FLYWHEEL_HOME=...",
    errno.EEXIST: "A file is where a folder is needed: move it away, or use another folder with FLYWHEEL_HOME=...",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SQLITE_FULL = "database or disk is full"
# Libraries in C++ and Rust report these in text only; SQLite has words of its own.
_TEXTS = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)} | {
    _SQLITE_FULL: errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
    "PytorchStreamWriter failed": errno.ENOSPC,
}


def sentence_of(error: BaseException) -> str | None:
    """What is wrong with the disk and what to do, when that is what `error` or one of its causes says; else None."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _ADVICE and cause.strerror:
            name = cause.filename if cause.filename2 is None else cause.filename2  # of a copy: its target
            place = "" if name is None else f"{_text(name)}: "
            return f"{place}{cause.strerror}. {_ADVICE[cause.errno]}."
        if (number := next((number for text, number in _TEXTS.items() if text in str(cause)), None)) is not None:
            return f"{os.strerror(number)}. {_ADVICE[number]}."
    return None


def is_full(error: BaseException) -> bool:
    """Whether `error` says that a disk, or a quota of it, is full; SQLite says it in words."""
    return getattr(error, "errno", None) in _FULL or _SQLITE_FULL in str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__


def _text(filename: object) -> str:
    return os.fsdecode(filename) if isinstance(filename, bytes) else str(filename)
