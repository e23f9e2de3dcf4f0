"""Joining an existing Ray cluster (`ray.address`): docs/scaling.md, docs/decisions/0012-cluster.md."""

from __future__ import annotations

import socket

from serve.browser_guard import is_loopback
from serve.config import Config
from serve.rayserve.start_error import StartError

_CONNECT_S = 5.0


def join(config: Config, flags: dict[str, str]) -> None:
    """Connect to an existing cluster. Raises StartError when it cannot serve this configuration."""
    import ray
    from ray.serve.context import _get_global_client

    address = config.ray.address or "auto"
    try:
        if address != "auto":  # check first; Ray itself would retry for a minute
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        # Serve's actors inherit the runtime environment of the process that starts them, so the nodes need not set our
        # flags. PYTHONPATH stays the nodes' own.
        env_vars = {name: value for name, value in flags.items() if name != "PYTHONPATH"}
        ray.init(address=address, runtime_env={"env_vars": env_vars}, log_to_driver=False, logging_level="ERROR")
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
    running = client.http_config
    if (running.host, running.port) != (server.host, server.port):
        ray.shutdown()
        raise StartError(
            f"Ray Serve runs on this cluster already, at {running.host}:{running.port}: set server.host and "
            "server.port to that, or stop it with: serve shutdown"
        )
