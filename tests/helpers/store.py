"""The store as it lies on the disk."""

from __future__ import annotations

from pathlib import Path


def bytes_of_store(home: Path) -> bytes:
    """The content of every file of a home's SQLite database, of which there is at least one."""
    files = sorted(home.glob("feedback.db*"))
    assert files, f"there is no database in {home}"
    return b"".join(file.read_bytes() for file in files)
