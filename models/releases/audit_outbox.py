"""Outbox of the audit log: a file under the home with one JSON line an entry, until the store has them.

A move does not wait for the database. When the database is back, its entry is written from here.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from export.files import exclusive_lock
from models.feedback.store import AuditEntry, Store
from models.home import audit_outbox_file

log = logging.getLogger("flywheel.audit_outbox")

_OLD_NAMES = {"who": "actor", "why": "reason"}
"""field names that earlier versions of Flywheel wrote: their lines may still be in the file"""


def append(home: Path, entry: AuditEntry) -> None:
    """Add an entry; it is on disk when this returns. Raises OSError."""
    line = json.dumps({**asdict(entry), "at": entry.at.isoformat()}).encode()
    with exclusive_lock(audit_outbox_file(home, entry.task)) as file:
        file.write(b"\n" + line + b"\n")  # on its own line, even after a line that a crash truncated
        file.flush()
        os.fsync(file.fileno())


def flush(home: Path, task: str, store: Store) -> None:
    """Write the task's entries to the store, each once, and empty the file. Raises StoreError, OSError."""
    path = audit_outbox_file(home, task)
    if not path.exists() or not path.stat().st_size:
        return
    with exclusive_lock(path) as file:
        file.seek(0)
        entries = [entry for line in file if line.strip() and (entry := _read(line)) is not None]
        store.audit.append_once(entries)  # after a crash, the file may hold entries that the store has
        file.truncate(0)


def _read(line: bytes) -> AuditEntry | None:
    try:
        values = {_OLD_NAMES.get(name, name): value for name, value in json.loads(line).items()}
        return AuditEntry(**{**values, "at": datetime.fromisoformat(values["at"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        log.error("skipping an audit log entry of %d bytes that a crash has truncated", len(line))
        return None
