"""How metrics of several processes become one: replicas answer over UNIX sockets, the control application sums.

Nothing is written: counting a request touches this process's memory alone, so that neither a full nor a lost disk can
fail it. Who is dead is known from its socket, which refuses the connection (docs/decisions/0029-nothing-on-a-disk.md).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from serve.metrics.snapshot import (
    Snapshot,
    from_bytes,
    merged,
    minus,
    newest_versions,
    snapshot,
    to_bytes,
    without_gauges,
)

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

log = logging.getLogger("flywheel.metrics")

_SUFFIX = ".metrics"
_MARK = "collected"  # a file that says that a process collected here before
_TIMEOUT_S = 0.5  # for processes that are paused; their last counts are used then


def serve(folder: Path, collector: Collector) -> None:
    """Answer each connection to this process's socket in `folder` with its counts, in a thread, from now on.

    Never raises: a process whose counts nobody can ask for still answers requests. That is logged.
    """
    path = folder / f"{os.getpid()}{_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        listener = _listen(path)
    except OSError as error:
        log.warning("the metrics of this process are missing in /metrics: %s: %s", path, error)
        return
    threading.Thread(target=_answer, args=(listener, collector), name="metrics", daemon=True).start()


def _listen(path: Path) -> socket.socket:
    """A socket that appears at `path` only once it listens: one that refuses is taken for that of a dead process."""
    listener = socket.socket(socket.AF_UNIX)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    try:
        listener.bind(str(draft))
        listener.listen()
        draft.rename(path)
    except OSError:
        listener.close()
        raise
    return listener


def _answer(listener: socket.socket, collector: Collector) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # this process has no file descriptor free just now
            time.sleep(0.1)
            continue
        try:
            with connection:
                connection.settimeout(_TIMEOUT_S)
                connection.sendall(to_bytes(snapshot(collector)))
        except OSError:  # the reader has left
            continue
        except Exception:  # of one collector, perhaps while it was written to: the next reader is answered
            log.exception("the metrics of this process cannot be read")


class Processes:
    """The counts of the processes that `serve` in `folder`. Counts of those that have ended are kept, their gauges not.

    What a process counted after it was last asked is lost with it: ask every few seconds. Thread-safe.

    When the process that collects is replaced, the counts of those that had ended are lost. All counts then begin at 0:
    a sum that only falls would be taken for a reset, and all that the living had ever counted for new.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._last: dict[str, Snapshot] = {}
        self._before: dict[str, Snapshot] = {}
        """of processes that lived before this one collected: what they had counted"""
        self._ended: Snapshot = {}
        if self._is_replacement():
            self.snapshots()
            self._before = {name: without_gauges(counts) for name, counts in self._last.items()}
            self._ended = {}

    def snapshots(self) -> list[Snapshot]:
        """Of each process that lives, and one of all that have ended."""
        with self._lock:
            names = {path.name for path in self._sockets()}
            # All are asked before the first answer is read, so that they work at once.
            asked = {name: self._ask(name) for name in sorted(names | set(self._last))}
            deadline = time.monotonic() + _TIMEOUT_S
            for name, connection in asked.items():
                if connection is not None:
                    self._read(name, connection, deadline)
            living = [self._since(name, counts) for name, counts in self._last.items()]
            return [*living, self._ended]

    def _is_replacement(self) -> bool:
        mark = self._folder / _MARK
        found = mark.exists()
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
        return found

    def _sockets(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if path.suffix == _SUFFIX]
        except OSError:
            return []

    def _ask(self, name: str) -> socket.socket | None:
        """A connection to a process, which begins to answer; None when it has ended or does not accept."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(str(self._folder / name))
        except (ConnectionRefusedError, FileNotFoundError):
            connection.close()
            self._forget(name)
            return None
        except OSError:  # paused: as it was when last asked
            connection.close()
            return None
        return connection

    def _read(self, name: str, connection: socket.socket, deadline: float) -> None:
        # What does not come in time, or is cut because the process ends: as it was when last asked.
        with suppress(OSError, ValueError), connection:
            chunks = []
            while True:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                if not (chunk := connection.recv(1 << 18)):
                    break
                chunks.append(chunk)
            self._last[name] = from_bytes(b"".join(chunks))

    def _since(self, name: str, counts: Snapshot) -> Snapshot:
        return minus(counts, self._before[name]) if name in self._before else counts

    def _forget(self, name: str) -> None:
        counts = without_gauges(self._since(name, self._last.pop(name, {})))
        self._before.pop(name, None)
        self._ended = newest_versions(merged([self._ended, counts]))
        with suppress(OSError):
            (self._folder / name).unlink()
