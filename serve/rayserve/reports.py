"""Reports of the tweaks in effect: each process writes a file beside its metrics, the control application reads them.

A report states what was observed in the running process (e.g. a connection of our class), not what was configured. The
module uses only the standard library, because HAProxy's wrapper imports it at each reload.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

FOLDER_VARIABLE = "HAPROXY_REPORTS"  # names the folder for the report of HAProxy's wrapper

_recorded: set[str] = set()
_lock = threading.Lock()
_file: str | None = None


def start(folder: str, role: str) -> None:
    """Write this process's report below `folder` from now on. `role` is server, replica or haproxy."""
    global _file
    with suppress(OSError):
        os.makedirs(folder, exist_ok=True)
    with _lock:
        _file = os.path.join(folder, f"tweaks_{role}_{os.getpid()}.json")
        _write()


def record(*names: str) -> None:
    """Record that these tweaks are in effect in this process. Cheap when they are recorded already."""
    if _recorded.issuperset(names):
        return
    with _lock:
        _recorded.update(names)
        _write()


def folder() -> str:
    """The folder that this process reports to. Call `start` first."""
    return os.path.dirname(_file or "")


def read(folder: str) -> Iterator[tuple[str, frozenset[str]]]:
    """(role, tweaks in effect) of each live process of this machine with a report in `folder`."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if not (name.startswith("tweaks_") and name.endswith(".json")):
            continue
        path = os.path.join(folder, name)
        _, role, pid = name.removesuffix(".json").split("_")
        if os.path.isdir("/proc") and not os.path.exists(f"/proc/{pid}"):
            with suppress(OSError):  # each reload of HAProxy leaves one
                os.unlink(path)
            continue
        with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            yield role, frozenset(json.load(file))


def _write() -> None:
    if _file is None:
        return
    # Told nobody, a tweak still works: a full disk must not keep HAProxy from its start or a request from its answer.
    with suppress(OSError):
        with open(_file + ".new", "w", encoding="utf-8") as file:
            json.dump(sorted(_recorded), file)
        os.replace(_file + ".new", _file)
