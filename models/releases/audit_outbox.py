"""Entries of the audit log on their way: a line each in a file of the home, until the store has them.

A move is made with or without a database, and what it was is known all the same when the database is back.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from export.files import exclusive_lock
from models.feedback.store import Audit, Store
from models.home import audit_outbox_file

log = logging.getLogger("flywheel.audit_outbox")

_OLD_NAMES = {"who": "actor", "why": "reason"}
"""as earlier versions of Flywheel wrote them: a line of theirs may still be on its way"""


def append(home: Path, entry: Audit) -> None:
    """Durable when it returns. Raises OSError."""
    line = json.dumps({**asdict(entry), "at": entry.at.isoformat()}).encode()
    with exclusive_lock(audit_outbox_file(home, entry.task)) as file:
        file.write(b"\n" + line + b"\n")  # a line of its own, even after one that a crash has torn
        file.flush()
        os.fsync(file.fileno())


def flush(home: Path, task: str, store: Store) -> None:
    """Write what is kept of the task into the store, each entry once, and forget it. Raises what the store raises."""
    path = audit_outbox_file(home, task)
    if not path.exists() or not path.stat().st_size:
        return
    with exclusive_lock(path) as file:
        file.seek(0)
        entries = [entry for line in file if line.strip() and (entry := _read(line)) is not None]
        store.audit.append_once(entries)  # a crash before the file was emptied leaves what the store has already
        file.truncate(0)


def _read(line: bytes) -> Audit | None:
    try:
        values = {_OLD_NAMES.get(name, name): value for name, value in json.loads(line).items()}
        return Audit(**{**values, "at": datetime.fromisoformat(values["at"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        log.error("an entry for the audit log was torn by a crash: %r", line)
        return None
