"""The composition root: a configuration becomes Ray Serve applications behind one HAProxy.

One application a task at `/v2/models/<task>`, and `control` at `/`. HAProxy routes by prefix straight into the
replica's own HTTP server, so a request meets no Python but the replica that answers it
(docs/decisions/0001-topology.md).
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serve import metrics
from serve.config import Config
from serve.rayserve import cluster, reports, tweaks
from serve.rayserve.applications import targets
from serve.rayserve.environment import LEAN, flags_of_serve, flags_of_this_run, has_haproxy, restore, set_flags
from serve.rayserve.start_error import StartError

_OBJECT_STORE_BYTES = 100 * 1024 * 1024  # nothing of ours travels through it
_SHOWS_WITHIN_S = 20.0  # a tweak: HAProxy asks a replica every 5 s, and it has shown nothing of its connections before


def check_port(host: str, port: int) -> None:
    """Raises StartError when the address cannot be bound: taken, or not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(
                f"Cannot listen on {host}:{port}: {error.strerror}. "
                "Stop what uses it, or choose another with PORT=... make serve or flywheel up --port ..."
            ) from error


@contextlib.contextmanager
def running(config: Config) -> Iterator[None]:
    """The server, ready when the block is entered, drained and gone when it is left.

    Raises StartError when it cannot start, with everything it had started ended again.
    """
    joins = config.ray.address is not None
    if not joins:
        check_port(config.server.host, config.server.port)
    config = config.model_copy(update={"home": config.home.resolve()})
    run_dir = Path(tempfile.mkdtemp(prefix="flywheel-"))
    applications = [*config.tasks, "control"]
    # On a cluster every node has its own ports and files for HAProxy, as its environment or Ray's defaults say.
    flags = flags_of_serve(config) | ({} if joins else flags_of_this_run(run_dir))
    before = set_flags(flags)
    if full := config.ray.tuning == "full":
        sys.path.insert(0, str(LEAN))  # this process read its PYTHONPATH before
    import ray
    from ray import serve as ray_serve

    try:
        if joins:
            cluster.join(config, flags)
        else:
            _start_ray(full)
        metrics_dir = metrics.prepare_directory(config.home)
        reports.begin(str(metrics_dir), "server")
        try:
            ray_serve.start(
                proxy_location="EveryNode" if joins else "HeadOnly",
                http_options={"host": config.server.host, "port": config.server.port},
                logging_config={"log_level": "WARNING", "enable_access_log": False},
            )
            ray_serve.run_many(targets(config, metrics_dir), wait_for_applications_running=True)
        except (RuntimeError, ray.exceptions.RayError) as error:
            raise StartError(_failures(applications) or str(error)) from error
        yield
        with _quiet():
            _drain(applications)
    finally:
        with _quiet():
            if ray.is_initialized():
                _end_serve(applications, joins)
                ray.shutdown()
        shutil.rmtree(run_dir, ignore_errors=True)
        restore(before)


def not_taken(config: Config, wait: Callable[[float], bool]) -> list[str]:
    """A sentence for each tweak that has not taken in the running server after so long that each should have.

    `wait` waits some seconds and returns whether to give up. None is told where Ray brings no HAProxy: most of them are
    about the replicas' own HTTP servers, which are not used there.
    """
    if config.ray.tuning == "stock" or not has_haproxy():
        return []
    folder, until = str(metrics.directory_of(config.home)), time.monotonic() + _SHOWS_WITHIN_S
    wanted = tweaks.applied(joins=config.ray.address is not None)
    while missing := tweaks.not_taken(tweaks.which_took(wanted, reports.read(folder))):
        if time.monotonic() > until:
            return missing
        if wait(0.5):
            return []
    return []


def _start_ray(full: bool) -> None:
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=_OBJECT_STORE_BYTES,
        configure_logging=True,
    )
    if full:
        _end_idle_processes()


def _end_idle_processes() -> None:
    """Ray cannot be told to leave these out: one looks ten times a second for logs to send to a driver that does not
    want them (1 % of a core), the other would ask a cloud for machines; 80 MB resident each."""
    from ray._private import ray_constants, worker

    node = worker.global_worker.node
    node.kill_log_monitor(check_alive=False)
    node.kill_monitor(check_alive=False)
    names = (ray_constants.PROCESS_TYPE_LOG_MONITOR, ray_constants.PROCESS_TYPE_MONITOR)
    if not any(name in node.all_processes for name in names):
        reports.took("idle_processes")


def _end_serve(applications: list[str], joined: bool) -> None:
    """End what we serve; Serve with it, unless others serve on a cluster that we joined."""
    from ray import serve as ray_serve

    if joined:
        _drain(applications)
        if ray_serve.status().applications:
            return
    ray_serve.shutdown()


def _drain(applications: list[str]) -> None:
    """Delete the applications while HAProxy still runs: each answers what it has accepted, then ends.

    `serve.shutdown` alone ends HAProxy first, and with it the connections that wait for an answer.
    """
    from ray import serve as ray_serve

    with ThreadPoolExecutor(len(applications)) as pool:
        list(pool.map(ray_serve.delete, applications))


def _failures(applications: list[str]) -> str:
    """The last line of what each failed one says: our own errors are sentences, the rest is traceback."""
    from ray import serve as ray_serve

    failed = []
    for name, status in ray_serve.status().applications.items():
        if name in applications and "FAILED" in str(status.status):
            messages = [status.message, *(d.message for d in status.deployments.values())]
            lines = [line for message in messages for line in message.splitlines() if "Error: " in line]
            failed.append(f"{name}: {lines[-1].split('Error: ', 1)[1] if lines else messages[-1]}")
    return "; ".join(failed)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray logs each actor it stops; someone who pressed Ctrl-C knows."""
    import logging

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
    yield
