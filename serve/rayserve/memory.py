"""Whether the server fits into the memory and the threads that it may use: estimates, to warn of it at the start.

Measured once, with three tasks on the default base, as proportional set sizes: 0.8 GB for Ray, Serve, HAProxy and the
control application, and 0.15 GB for each replica. Weights are mapped once for all replicas of a task. Threads are
counted on two cores; Ray has a few more on larger machines.
"""

from __future__ import annotations

from export.machine import usable_memory, usable_threads
from models.home import bundle_folder
from models.releases.release import ReleaseError, read_release
from serve.config import Config

_GB = 1e9
_BASE, _REPLICA, _RETRAINING = 0.8 * _GB, 0.15 * _GB, 1.5 * _GB
_THREADS, _REPLICA_THREADS = 300, 30
_FULL = 0.95  # of the memory: from there on Ray kills workers


def shortage(config: Config) -> str:
    """A sentence that says what does not fit, and what to set; empty if everything fits."""
    if config.ray.address is not None:
        return ""
    usable = usable_memory()
    serving = _BASE + sum(
        task.replica_count() * _REPLICA + _weights(config, name) for name, task in config.tasks.items()
    )
    has = f"this process may use {usable / _GB:.1f} GB of memory (its cgroup's limit, or the machine's)"
    if serving > _FULL * usable:
        return (
            f"{has}, and serving needs about {serving / _GB:.1f} GB: processes will be killed. Allow more, or set "
            "fewer tasks, or fewer replicas of them (tasks.<task>.replicas, 0.15 GB each)."
        )
    if config.learning.automatic and serving + _RETRAINING > _FULL * usable:
        return (
            f"{has}; serving needs about {serving / _GB:.1f} GB and a retraining 1.5 GB more, which would be killed. "
            "Allow more, or set learning.automatic: false and run flywheel retrain where there is memory."
        )
    return ""


def few_threads(config: Config) -> str:
    """A sentence when the cgroup allows too few threads for Ray, which then hangs without one; else empty."""
    needed = _THREADS + _REPLICA_THREADS * sum(task.replica_count() for task in config.tasks.values())
    if config.ray.address is not None or usable_threads() >= needed:
        return ""
    return (
        f"this process may have {usable_threads():.0f} threads (pids.max of its cgroup), and a server needs about "
        f"{needed}: it may hang. Allow more (docker --pids-limit, TasksMax=, podPidsLimit)."
    )


def _weights(config: Config, task: str) -> float:
    """Bytes of the champion's bundle, which replicas map."""
    try:
        folder = bundle_folder(config.home, task, read_release(config.home, task).champion)
        return float(sum(file.stat().st_size for file in folder.iterdir()))
    except (ReleaseError, OSError):
        return 0.0
