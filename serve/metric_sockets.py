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
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

log = logging.getLogger("flywheel.metrics")

_SUFFIX = ".metrics"
_OURS = "flywheel_"  # prefix of our collectors' names; prometheus-client adds some of the process
_TIMEOUT_S = 0.5  # for a process that is paused; its last counts are used then
_MAXIMUM = frozenset({"flywheel_backlog_seconds"})  # gauges of which the largest is meant; others are summed
_CREATED = "_created"  # prometheus-client's samples with the time of each counter's start, which cannot be summed


class Family(NamedTuple):
    """One collector of one process: its name, help, type (counter, gauge, histogram), and samples."""

    name: str
    documentation: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


Snapshot = list[Family]


def snapshot(collector: Collector) -> Snapshot:
    """Our families in one process."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [(s.name, s.labels, s.value) for s in metric.samples if not s.name.endswith(_CREATED)],
        )
        for metric in collector.collect()
        if metric.name.startswith(_OURS)
    ]


def merged(snapshots: Iterable[Snapshot]) -> list[Metric]:
    """One family of each name: counters and histograms are summed, gauges as `_MAXIMUM` says."""
    from prometheus_client.core import Metric

    first: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for families in snapshots for family in families):
        first.setdefault(family.name, family)
        found = values.setdefault(family.name, {})
        for name, labels, value in family.samples:
            key = (name, tuple(labels.items()))
            old = found.get(key)
            if old is None:
                found[key] = value
            else:
                found[key] = max(old, value) if family.name in _MAXIMUM else old + value
    metrics = []
    for name, family in first.items():
        metric = Metric(name, family.documentation, family.kind)
        for (sample, items), value in values[name].items():
            metric.add_sample(sample, dict(items), value)
        metrics.append(metric)
    return metrics


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
            with connection:
                connection.settimeout(_TIMEOUT_S)
                connection.sendall(orjson.dumps(snapshot(collector), default=tuple))
        except OSError:  # the reader has left, or this process has no file descriptor free just now
            time.sleep(0.1)


class Processes:
    """The counts of the processes that `serve` in `folder`. Counts of those that have ended are kept, their gauges not.

    What a process counted after it was last asked is lost with it: ask every few seconds. Thread-safe.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._last: dict[str, Snapshot] = {}
        self._ended: Snapshot = []

    def snapshots(self) -> list[Snapshot]:
        """Of each process that lives, and one of all that have ended."""
        with self._lock:
            names = {path.name for path in self._sockets()}
            for name in names | set(self._last):
                try:
                    self._last[name] = _ask(self._folder / name)
                except (ConnectionRefusedError, FileNotFoundError):
                    self._forget(name)
                except (OSError, ValueError):  # paused, or it ended within its answer: as it was when last asked
                    continue
            return [*self._last.values(), self._ended]

    def _sockets(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if path.suffix == _SUFFIX]
        except OSError:
            return []

    def _forget(self, name: str) -> None:
        counts = [family for family in self._last.pop(name, []) if family.kind != "gauge"]
        self._ended = snapshot(Collected(merged([self._ended, counts])))
        with suppress(OSError):
            (self._folder / name).unlink()


class Collected:
    """Metric families as a collector, for prometheus-client's registries."""

    def __init__(self, metrics: list[Metric]):
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def _ask(path: Path) -> Snapshot:
    """Raises OSError (ConnectionRefusedError: its process has ended), or ValueError when the answer is cut."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(str(path))
        chunks = []
        while chunk := connection.recv(1 << 16):
            chunks.append(chunk)
    return [
        Family(name, documentation, kind, [(sample, labels, value) for sample, labels, value in samples])
        for name, documentation, kind, samples in orjson.loads(b"".join(chunks))
    ]
