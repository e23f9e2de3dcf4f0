"""The number of replicas of a task, from the backlog of those that run.

Ray Serve sees none of our requests (bypass.py), so each replica reports two metrics: its backlog in seconds of model
time, and the CPU use of its process. Serve averages them over `LOOK_BACK_S`, calls the policy, and applies the delays
and bounds of the configuration. The policy is pickled and sent to Serve's controller, so this module imports only the
standard library at run time.
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

# Thresholds of the mean backlog, as fractions of `wait_s`, the longest wait that is allowed.
_SCALE_UP_BACKLOG = 0.1
_SCALE_DOWN_BACKLOG = 0.01
_MAX_BUSY = 0.6  # CPU use per remaining replica, up to which one replica may be removed


class ReplicaLoad(NamedTuple):
    """The metrics that a replica reports."""

    backlog_s: float
    """seconds of work waiting for the model"""
    busy: float
    """CPU seconds per second that its process uses"""


class LoadMeter:
    """Measures a process's CPU use between two readings."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self, backlog_s: float) -> ReplicaLoad:
        wall, cpu = time.monotonic(), time.process_time()
        busy = (cpu - self._cpu) / max(wall - self._wall, 1e-3)
        self._wall, self._cpu = wall, cpu
        return ReplicaLoad(backlog_s, busy)


def desired_replicas(loads: Sequence[ReplicaLoad], wait_s: float) -> int:
    """The desired number of replicas, from the load of those that run; `wait_s` is the longest wait that is allowed.

    More when there is a backlog: at least one, and twice as many when it reaches `wait_s`, since refused requests are
    not in the backlog. One less when there is almost no backlog and the others have the CPU for its work: an empty
    queue alone could also be that of a replica that only just keeps up.
    """
    now = len(loads)
    waiting = fmean(load.backlog_s for load in loads) / wait_s
    if waiting > _SCALE_UP_BACKLOG:
        return now + math.ceil(now * min(waiting, 1.0))
    if waiting < _SCALE_DOWN_BACKLOG and sum(load.busy for load in loads) < _MAX_BUSY * (now - 1):
        return now - 1
    return now


class BacklogPolicy:
    """`desired_replicas` as Ray Serve calls it."""

    def __init__(self, wait_s: float):
        self._wait_s = wait_s

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The desired number, and no state. Unchanged while replicas start or stop, or have not reported yet."""
        target: int = context.target_num_replicas
        reported = context.aggregated_metrics or {}
        backlog, busy = reported.get("backlog_s", {}), reported.get("busy", {})
        loads = [ReplicaLoad(backlog[replica], busy[replica]) for replica in backlog if replica in busy]
        if not loads or len(loads) != target or context.current_num_replicas != target:
            return target, {}
        return desired_replicas(loads, self._wait_s), {}
