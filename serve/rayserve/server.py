"""The composition root: a configuration becomes Ray Serve applications behind one HAProxy.

One application per task at `/v2/models/<task>`, and `control` at `/`. HAProxy routes by prefix directly to the
replica's own HTTP server, so that the replica is the only Python process that handles a request
(docs/decisions/0001-topology.md).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models.feedback.pseudonyms import SecretError, UserHasher
from models.home import user_secret_file
from serve.config import Config, LoggingConfig
from serve.logs import SOCKET_VARIABLE, adopt, format_of, received_logs
from serve.rayserve import cluster, reports, scratch, tweaks
from serve.rayserve.applications import failures, targets
from serve.rayserve.environment import STUBS, flags_of_serve, flags_of_this_run, has_haproxy, restore, set_flags
from serve.rayserve.run_folder import run_folder
from serve.rayserve.start_error import StartError
from serve.tracing.export import missing_package

_OBJECT_STORE_BYTES = 100 * 1024 * 1024  # we put nothing into it
_MIN_HOME_BYTES = 1 << 20
_MIN_RAY_BYTES = 4 << 20
_LOG_SOCKET = "log"
_POLL_S = 0.2
_RAY_CHECK_S = 2.0
_PORT_WAIT_S = 3.0  # for the processes of a server that was killed, as HAProxy, which end by themselves
_TWEAK_TIMEOUT_S = 20.0  # a replica shows its connections' tweaks at HAProxy's first health check, every 1.5 s


def check_port(host: str, port: int) -> None:
    """Raises StartError when the address cannot be bound: it is in use, not this machine's, or not permitted."""
    until = time.monotonic() + _PORT_WAIT_S
    while (error := _try_port(host, port)) is not None:
        if getattr(error, "errno", None) != errno.EADDRINUSE or time.monotonic() > until:
            raise StartError(f"Cannot listen on {host}:{port}: {_bind_error(error, port)}") from error
        time.sleep(_POLL_S)


def _try_port(host: str, port: int) -> OSError | UnicodeError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, UnicodeError) as error:
        return error
    return None


def _bind_error(error: Exception, port: int) -> str:
    """What `error` of a bind means, and what to do."""
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return (
            f"{error.strerror}. "
            "Stop the process that uses it, or choose another with PORT=... make serve or flywheel up --port ..."
        )
    if isinstance(error, PermissionError):
        return f"{error.strerror}. Choose a port from 1024 on, or grant CAP_NET_BIND_SERVICE for port {port}."
    return (
        f"{getattr(error, 'strerror', None) or error}. It is not an address of this machine: "
        "set --host, HOST, FLYWHEEL_SERVER__HOST or server.host to one, such as 127.0.0.1, or 0.0.0.0 for all."
    )


class Stopped(Exception):
    """Raised by `running` when a stop was requested before the server was ready."""


def _never(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def check_secret(config: Config) -> None:
    """Create the key of user pseudonyms if it is missing. Raises StartError when the home does not take it."""
    secret = config.feedback.secret
    try:
        UserHasher.open(config.home, secret.get_secret_value() if secret else None)
    except OSError as error:
        raise StartError(
            f"Cannot write the key of user pseudonyms to {user_secret_file(config.home)}: {error.strerror or error}. "
            "Make the home writable, make room there, or set feedback.secret."
        ) from error
    except SecretError as error:
        raise StartError(str(error)) from error


def check_tracing(config: Config) -> None:
    """Raises StartError when traces are wanted and a package is missing for them."""
    if config.tracing.endpoint is not None and (missing := missing_package()):
        raise StartError(f"{missing[0].upper()}{missing[1:]}.")


def home_problem(config: Config) -> str | None:
    """A sentence when the home cannot be written now: the server starts, and does without what it would write there."""
    try:
        room = os.statvfs(config.home)
    except OSError as error:
        return f"{config.home}: {error.strerror}"
    if not os.access(config.home, os.W_OK | os.X_OK):
        reason = "cannot be written"
    elif room.f_bavail * room.f_frsize < _MIN_HOME_BYTES:
        reason = "has no room"
    else:
        return None
    return f"{config.home} {reason}: predictions are answered; corrections, releases and trainings wait until it can be"


@contextlib.contextmanager
def running(
    config: Config, stop_requested: Callable[[float], bool] = _never, ray_ended: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Run the server: ready when the block is entered, drained and stopped when it is left.

    `stop_requested(seconds)` waits at most so long for a request to stop, and returns whether there is one. `ray_ended`
    is called in a thread when Ray, started here, ends by itself while the server serves or drains.
    Raises StartError when it cannot start, and Stopped when that was requested, after stopping everything that it had
    started.
    """
    _stop_if(stop_requested(0))
    joins = config.ray.address is not None
    if not joins:
        check_port(config.server.host, config.server.port)
    logging_ = LoggingConfig(format=format_of(config.logging))
    config = config.model_copy(update={"home": config.home.resolve(), "logging": logging_})
    check_secret(config)
    check_tracing(config)
    folder = scratch.choose(config.home, scratch.MAX_BYTES_OF_HAPROXY).folder
    with run_folder(folder) as run_dir, received_logs(run_dir / _LOG_SOCKET):
        yield from _running(config, run_dir, stop_requested, ray_ended)


def _running(
    config: Config, run_dir: Path, stop_requested: Callable[[float], bool], ray_ended: Callable[[], None]
) -> Iterator[None]:
    joins = config.ray.address is not None
    # Each process creates it, so that it is there on every machine of a cluster.
    metrics_dir = run_dir / "metrics"
    applications = [*config.tasks, "control"]
    sessions = scratch.choose(config.home).folder
    # On a cluster, each node's environment or Ray's defaults decide HAProxy's ports and files.
    flags = flags_of_serve(config) | ({} if joins else flags_of_this_run(run_dir, sessions))
    flags[reports.FOLDER_VARIABLE] = str(metrics_dir)
    flags[SOCKET_VARIABLE] = str(run_dir / _LOG_SOCKET)
    previous = set_flags(flags)
    ready = False
    try:
        if config.ray.tuning == "full":
            sys.path.insert(0, str(STUBS))  # this process has read its PYTHONPATH already
        if joins:
            cluster.join(config, flags)
        else:
            _start_ray(config.ray.tuning == "full", sessions)
        reports.start(str(metrics_dir), "server")
        _deploy(config, applications, metrics_dir, stop_requested)
        ready = True
        with contextlib.nullcontext() if joins else _watching_ray(ray_ended):
            try:
                yield
            finally:
                with _silence_ray():
                    _drain(applications)
    finally:
        with _silence_ray():
            _shut_down(applications, joins, ready)
        restore(previous)


def _deploy(
    config: Config, applications: Sequence[str], metrics_dir: Path, stop_requested: Callable[[float], bool]
) -> None:
    """Start Serve and the applications; returns when they answer. Raises StartError and Stopped."""
    import ray
    from ray import serve as ray_serve
    from ray.serve.context import _get_global_client

    _stop_if(stop_requested(0))
    for name in ("ray", "ray.serve"):  # both have handlers of their own from when they are imported
        adopt(name)
    try:
        ray_serve.start(
            proxy_location="EveryNode" if config.ray.address is not None else "HeadOnly",
            http_options={"host": host_for_serve(config), "port": config.server.port},
            logging_config={
                "log_level": "WARNING",
                "enable_access_log": False,
                "encoding": "JSON" if config.logging.format == "json" else "TEXT",
            },
        )
        _stop_if(stop_requested(0))
        # Serve's own wait for the replicas cannot be ended by a request to stop.
        ray_serve.run_many(targets(config, metrics_dir), wait_for_applications_running=False)
        while not _all_run(applications):
            _stop_if(stop_requested(_POLL_S))
        _get_global_client().wait_for_proxies_serving()
    except (RuntimeError, ray.exceptions.RayError) as error:
        raise StartError(failures(applications) or _serve_error(error)) from error


def _serve_error(error: Exception) -> str:
    """What Ray Serve says last: before it come the lines of a traceback, or of HAProxy."""
    said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    logs = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray/session_latest/logs")
    return f"Ray Serve does not start: {said[-1]} Its logs are in {logs}."


def host_for_serve(config: Config) -> str:
    """The address to listen at. Serve writes `*` into HAProxy's file for `::`, which is IPv4 alone; `::0` is both."""
    ours = config.ray.address is None and config.ray.tuning == "full" and has_haproxy()
    return "::0" if ours and config.server.host == "::" else config.server.host


def _all_run(applications: Sequence[str]) -> bool:
    """Whether the applications have the replicas that they need. Raises StartError when one has failed."""
    from ray import serve as ray_serve

    found = ray_serve.status().applications
    states = {name: str(found[name].status.value) if name in found else "NOT_STARTED" for name in applications}
    if "DEPLOY_FAILED" in states.values():
        raise StartError(failures(applications))
    return all(state == "RUNNING" for state in states.values())


def _stop_if(requested: bool) -> None:
    if requested:
        raise Stopped


def _shut_down(applications: list[str], joined: bool, ready: bool) -> None:
    import ray

    if not ray.is_initialized():
        return
    if ready or joined:
        _end_serve(applications, joined)
    ray.shutdown()


def inactive_tweaks(config: Config, wait: Callable[[float], bool]) -> list[str]:
    """A sentence for each tweak that is not in effect in the running server within `_TWEAK_TIMEOUT_S`.

    `wait(seconds)` sleeps and returns whether to give up. Empty when Ray includes no HAProxy: most tweaks concern the
    replicas' own HTTP servers, which are not used then.
    """
    if config.ray.tuning == "stock" or not has_haproxy():
        return []
    folder, until = reports.folder(), time.monotonic() + _TWEAK_TIMEOUT_S
    wanted = tweaks.applied(joins=config.ray.address is not None)
    while missing := tweaks.inactive(tweaks.in_effect(wanted, reports.read(folder))):
        if time.monotonic() > until:
            return missing
        if wait(0.5):
            return []
    return []


@contextlib.contextmanager
def _watching_ray(ended: Callable[[], None]) -> Iterator[None]:
    """In this block, call `ended` in a thread when a process of Ray without which nothing is served has ended.

    Ray starts neither its raylet nor its GCS again. Without this, the server would wait beside them for ever, and a
    drain for a minute or more.
    """
    from ray._private import ray_constants, worker

    needed = (ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER)
    node, left = worker.global_worker.node, threading.Event()

    def watch() -> None:
        while not left.wait(_RAY_CHECK_S):
            if any(name in needed for name, _ in node.dead_processes()) and not left.is_set():
                ended()
                return

    thread = threading.Thread(target=watch, name="ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _start_ray(full: bool, folder: Path) -> None:
    """Start Ray with its session in `folder`. Raises StartError when it cannot write there, or does not come up."""
    import ray

    advice = f"Ray writes its logs and sockets below {folder}/ray: make room there, or name another with RAY_TMPDIR=..."
    with contextlib.suppress(OSError):  # Ray makes the folder
        room = os.statvfs(folder)
        if room.f_bavail * room.f_frsize < _MIN_RAY_BYTES:  # Ray itself would wait for half a minute
            raise StartError(f"Ray cannot start: the disk of {folder} is full. {advice}")
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=_OBJECT_STORE_BYTES,
            configure_logging=True,
        )
    except (OSError, RuntimeError) as error:
        raise StartError(f"Ray cannot start: {' '.join(str(error).split())} {advice}") from error
    if full:
        _end_idle_processes()


def _end_idle_processes() -> None:
    """Stop Ray's log monitor, which polls for logs ten times a second (1 % of a core) although the driver wants none,
    and its autoscaler monitor. Ray has no option to leave them out; each has 80 MB resident."""
    from ray._private import ray_constants, worker

    node = worker.global_worker.node
    node.kill_log_monitor(check_alive=False)
    node.kill_monitor(check_alive=False)
    names = (ray_constants.PROCESS_TYPE_LOG_MONITOR, ray_constants.PROCESS_TYPE_MONITOR)
    if not any(name in node.all_processes for name in names):
        reports.record("idle_processes")


def _end_serve(applications: list[str], joined: bool) -> None:
    """Stop our applications, and Serve itself unless a cluster that we joined serves others' applications."""
    from ray import serve as ray_serve

    if joined:
        _drain(applications)
        if ray_serve.status().applications:
            return
    ray_serve.shutdown()


def _drain(applications: list[str]) -> None:
    """Delete the applications while HAProxy still runs: each answers its accepted requests, then stops.

    `serve.shutdown` alone stops HAProxy first, and so cuts the connections of requests in progress.
    """
    from ray import serve as ray_serve

    with ThreadPoolExecutor(len(applications)) as pool:
        list(pool.map(ray_serve.delete, applications))


@contextlib.contextmanager
def _silence_ray() -> Iterator[None]:
    """Silence Ray during a shutdown: it logs every actor that it stops, and a thread of it prints that Serve's
    controller, which ends itself, has failed."""
    import logging

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        yield
