"""Atomic writes and locks of files that several processes share."""

from __future__ import annotations

import fcntl
import glob
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_OLD_DRAFT_S = 3600.0  # a write takes seconds


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace the file at `path` atomically: readers, also after a crash, find the old or the new content, complete.

    If `durable`, the content is on disk when this returns. Creates the folder. Raises OSError, and leaves the old file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if durable:
        _remove_old_drafts(path)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:  # the new name as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_old_drafts(path: Path) -> None:
    """Delete what processes left that were killed while they wrote this file."""
    for draft in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > _OLD_DRAFT_S:
                draft.unlink()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[BinaryIO]:
    """Lock the file at `path` against other processes and threads, and open it to read and append.

    Creates the file. Waits for other holders. The lock ends with the block or the process; the file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
