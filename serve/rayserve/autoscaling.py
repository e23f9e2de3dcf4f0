"""How many replicas a task should have, from the work that waits in them.

Ray Serve sees no request of ours (bypass.py), so each replica tells it two figures of its own: the seconds of
work that wait for its model, and how busy its process is. Serve averages them over `LOOK_BACK_S`, asks the policy, and
applies the delays and bounds of the configuration. The policy object travels pickled to Serve's controller, so this
module imports nothing there but the standard library.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

LOOK_BACK_S = 10.0
REPORT_EVERY_S = 2.0

_WAITING_LONG = 0.1  # of the longest wait that is allowed: more replicas
_WAITING_LITTLE = 0.01  # perhaps fewer
_BUSY_ENOUGH = 0.6  # of a core, for each replica that would be left


class Load(NamedTuple):
    """What one replica reports."""

    backlog_s: float
    """seconds of work waiting for the model"""
    busy: float
    """CPU seconds its process takes in a second"""


class LoadMeter:
    """Turns a process' CPU time into the share of a core it takes between two readings."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self, backlog_s: float) -> Load:
        wall, cpu = time.monotonic(), time.process_time()
        busy = (cpu - self._cpu) / max(wall - self._wall, 1e-3)
        self._wall, self._cpu = wall, cpu
        return Load(backlog_s, busy)


def wanted_replicas(loads: Sequence[Load], wait_s: float) -> int:
    """The number of replicas to have, from the load of each that runs; `wait_s` is the longest wait that is allowed.

    More when work waits: one at least, and twice as many where the wait is at its limit, since what was turned away
    there is not in the backlog. One less when next to nothing waits and the others have room for its work: an empty
    queue alone would also be that of a replica that just keeps up.
    """
    now = len(loads)
    waiting = fmean(load.backlog_s for load in loads) / wait_s
    if waiting > _WAITING_LONG:
        return now + math.ceil(now * min(waiting, 1.0))
    if waiting < _WAITING_LITTLE and sum(load.busy for load in loads) < _BUSY_ENOUGH * (now - 1):
        return now - 1
    return now


class BacklogPolicy:
    """`wanted_replicas` as Ray Serve calls it."""

    def __init__(self, wait_s: float):
        self._wait_s = wait_s

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The wanted number, and no state. No change while replicas start or stop, or have not reported yet."""
        target: int = context.target_num_replicas
        reported = context.aggregated_metrics or {}
        backlog, busy = reported.get("backlog_s", {}), reported.get("busy", {})
        loads = [Load(backlog[replica], busy[replica]) for replica in backlog if replica in busy]
        if not loads or len(loads) != target or context.current_num_replicas != target:
            return target, {}
        return wanted_replicas(loads, self._wait_s), {}
