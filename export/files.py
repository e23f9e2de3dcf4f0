"""Files that several processes share, and that a crash must not tear."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` in one step: whoever reads it, or a crash, finds the old one or the new one, whole.

    On the disk when it returns. Makes the folder where there is none. Raises OSError, and then leaves the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def exclusive_lock(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, made where there is none, open to read and append, while no other process or thread has it.

    Waits for the others. The lock ends with the process, however that ends; the file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
