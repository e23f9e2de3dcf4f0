"""Each process says which tweaks took in it, in a file beside its metrics; the control application reads them all.

A report states what was observed in the running process (a connection is of our class), not what was configured. The
standard library alone, because HAProxy's wrapper imports it at each reload.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator

FOLDER_VARIABLE = "HAPROXY_REPORTS"  # where HAProxy's wrapper writes its report

_took: set[str] = set()
_lock = threading.Lock()
_file: str | None = None


def begin(folder: str, role: str) -> None:
    """Write this process' report below `folder` from now on. `role` is server, replica or haproxy."""
    global _file
    os.makedirs(folder, exist_ok=True)
    with _lock:
        _file = os.path.join(folder, f"tweaks_{role}_{os.getpid()}.json")
        _write()


def took(*names: str) -> None:
    """Note that these tweaks have taken effect in this process. Cheap when they are noted already."""
    if _took.issuperset(names):
        return
    with _lock:
        _took.update(names)
        _write()


def read(folder: str) -> Iterator[tuple[str, frozenset[str]]]:
    """The role of each living process of this machine that reports to `folder`, and the tweaks that took in it."""
    for name in os.listdir(folder):
        if not (name.startswith("tweaks_") and name.endswith(".json")):
            continue
        _, role, pid = name.removesuffix(".json").split("_")
        if os.path.isdir("/proc") and not os.path.exists(f"/proc/{pid}"):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            yield role, frozenset(json.load(file))


def _write() -> None:
    if _file is None:
        return
    with open(_file + ".new", "w", encoding="utf-8") as file:
        json.dump(sorted(_took), file)
    os.replace(_file + ".new", _file)
