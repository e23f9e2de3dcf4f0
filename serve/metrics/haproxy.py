"""Requests that HAProxy answered with an error itself because no replica did, from HAProxy's own statistics."""

from __future__ import annotations

import csv
import re
import socket
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve.metrics.metric import TASK, Metric, process_registry

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

REASONS = ("no_replica", "no_answer")
UNANSWERED = Metric(
    "flywheel_unanswered_requests_total",
    "counter",
    "Requests of any endpoint that HAProxy answered with an error itself: 503 as no replica could be reached, 502 or "
    "504 as one ended or did not answer. A replica counts none of them.",
    {"task": TASK, "reason": ", ".join(REASONS)},
)
METRICS = (UNANSWERED,)

_TIMEOUT_S = 0.5
_QUESTION = b"show info; show stat -1 6 -1\n"  # 6: a line for each backend and each of its servers
_BACKEND = "http-"  # Serve's prefix to an application's name, which is the task's

Counts = dict[tuple[str, str], int]  # by task and reason


class UnansweredRequests:
    """A collector of prometheus-client. Thread-safe.

    HAProxy begins anew at 0 with each reload, which comes with each change of replicas. So ask it every few seconds
    (`count`): what it counted after it was last asked, and before a reload, is lost.

    - `admin`: path of the administrator's socket of this machine's HAProxy. None, or none there: all counts stay 0.
    """

    def __init__(self, admin: Path | None, tasks: Collection[str], registry: CollectorRegistry | None = None):
        self._admin = admin
        self._lock = threading.Lock()
        self._pid = 0
        self._last: Counts | None = None
        self._sums: Counts = {(task, reason): 0 for task in tasks for reason in REASONS}
        (registry or process_registry()).register(self)

    def count(self) -> None:
        """Add what HAProxy has counted since it was last asked."""
        if self._admin is None:
            return
        with self._lock:  # answers are added in the order in which HAProxy gave them
            if (found := parsed(_ask(self._admin))) is None:
                return
            pid, counts = found
            if self._last is None:  # a control application that was replaced: its predecessor had these
                self._last, self._pid = counts, pid
            before = self._last if pid == self._pid else {}
            for key in self._sums:
                self._sums[key] += max(0, counts.get(key, 0) - before.get(key, 0))
            self._pid, self._last = pid, counts

    def describe(self) -> list[Any]:
        return [UNANSWERED.samples()]

    def collect(self) -> Iterator[Any]:
        self.count()
        family = UNANSWERED.samples()
        with self._lock:
            for labels, total in self._sums.items():
                family.add_metric(list(labels), total)
        yield family


def parsed(answer: str) -> tuple[int, Counts] | None:
    """The process id and the counts in HAProxy's answer; None when it is incomplete."""
    pid = re.search(r"^Pid: (\d+)$", answer, re.M)
    _, mark, table = answer.partition("# pxname,")
    if pid is None or not mark:
        return None
    counts: Counts = {}
    of_replicas: Counter[str] = Counter()  # responses with a 5xx, by task
    for row in csv.DictReader(("pxname," + table).splitlines()):
        if not row["pxname"].startswith(_BACKEND):
            continue
        task = row["pxname"].removeprefix(_BACKEND)
        if row["svname"] != "BACKEND":  # a server, before its backend
            of_replicas[task] += int(row["hrsp_5xx"] or 0)
            continue
        no_replica, no_answer, all_5xx = (int(row[column] or 0) for column in ("econ", "eresp", "hrsp_5xx"))
        counts[task, "no_replica"] = no_replica
        # HAProxy 2.8 counts some 502 twice in `eresp`: there are no more than its 5xx that no replica gave.
        counts[task, "no_answer"] = max(0, min(no_answer, all_5xx - of_replicas[task] - no_replica))
    return int(pid[1]), counts


def _ask(admin: Path) -> str:
    """HAProxy's answer; empty when it does not give one in time."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(_TIMEOUT_S)
        asked.connect(str(admin))
        asked.sendall(_QUESTION)
        return b"".join(iter(lambda: asked.recv(1 << 16), b"")).decode(errors="replace")
    return ""
