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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serve import metrics
from serve.browser_guard import is_loopback
from serve.config import Config
from serve.rayserve.applications import targets
from serve.rayserve.environment import LEAN, flags_of_serve, flags_of_this_run, restore, set_flags

_OBJECT_STORE_BYTES = 100 * 1024 * 1024  # nothing of ours travels through it
_CONNECT_S = 5.0


class StartError(Exception):
    """Raised when the server cannot start for a reason the user can mend; the text says how."""


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
    flags = flags_of_serve(config.limits.deadline_s) | ({} if joins else flags_of_this_run(run_dir))
    before = set_flags(flags)
    sys.path.insert(0, str(LEAN))  # this process read its PYTHONPATH before
    import ray
    from ray import serve as ray_serve

    try:
        if joins:
            _join_ray(config, flags)
        else:
            _start_ray()
        metrics_dir = metrics.prepare_directory(config.home)
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


def _start_ray() -> None:
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=_OBJECT_STORE_BYTES,
        configure_logging=True,
    )
    _end_idle_processes()


def _end_idle_processes() -> None:
    """Ray cannot be told to leave these out: one looks ten times a second for logs to send to a driver that does not
    want them (1 % of a core), the other would ask a cloud for machines; 80 MB resident each."""
    from ray._private import worker

    node = worker.global_worker.node
    node.kill_log_monitor(check_alive=False)
    node.kill_monitor(check_alive=False)


def _join_ray(config: Config, flags: dict[str, str]) -> None:
    """Connect to a cluster that runs already. Raises StartError when it cannot serve what is configured."""
    import ray
    from ray.serve.context import _get_global_client

    address = config.ray.address or "auto"
    try:
        if address != "auto":  # Ray itself would try for a minute
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        # Serve's actors inherit the runtime environment of who starts them, so the nodes need not know our flags. Where
        # their Python finds its modules is theirs to say.
        named = {name: value for name, value in flags.items() if name != "PYTHONPATH"}
        ray.init(address=address, runtime_env={"env_vars": named}, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise StartError(f"Cannot join the Ray cluster at ray.address {address!r}: {error}") from error
    server = config.server
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(machines) > 1 and is_loopback(server.host):
        ray.shutdown()
        raise StartError(
            f"server.host {server.host} cannot be reached from the other machines of the cluster; "
            "set it to 0.0.0.0, behind a firewall."
        )
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return
    here = client.http_config
    if (here.host, here.port) != (server.host, server.port):
        ray.shutdown()
        raise StartError(
            f"Ray Serve runs on this cluster already, at {here.host}:{here.port}: set server.host and server.port "
            "to that, or end it with: serve shutdown"
        )


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
