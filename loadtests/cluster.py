"""What more replicas and a second node do to the intent task: `python loadtests/cluster.py`.

Starts two Ray nodes on this machine, as `ray start` does on two machines, and has Flywheel join them. Measures, in
turns: one replica, two replicas on one node, and two replicas on two nodes, at 64 connections and at one. Checks that
each node's HAProxy answers, that the replicas are where they should be, and that each of them answered. On one machine
the nodes share its cores: the figures show what the design costs, not what a second machine brings. Needs `wrk`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TASK = "intent"
START_TIMEOUT_S = 240
TEXTS = (
    "How do I track my parcel?", "I was charged twice for one order", "cancel my subscription please",
    "the app says my card is not valid, but it is", "can I change the delivery address?", "where is my refund",
)  # fmt: skip


class Setup:
    """A cluster of `nodes` on ports from `port` on, with `replicas` of the task."""

    def __init__(self, name: str, nodes: int, replicas: int, port: int):
        self.name, self.nodes, self.replicas, self.port = name, nodes, replicas, port
        self.urls = [f"http://127.0.0.1:{port + node}" for node in range(nodes)]
        self.rates: dict[int, list[float]] = {1: [], 64: []}
        self.p50_ms: dict[int, list[float]] = {1: [], 64: []}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=os.environ.get("FLYWHEEL_HOME", ROOT / "var"))
    parser.add_argument("--port", type=int, default=8480, help="this and the next nine are used")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    setups = [
        Setup("1 replica", 1, 1, arguments.port),
        Setup("2 replicas", 1, 2, arguments.port + 2),
        Setup("2 replicas, 2 nodes", 2, 2, arguments.port + 4),
    ]
    with contextlib.ExitStack() as stack:
        for setup in setups:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flywheel-cluster-")))
            environment = stack.enter_context(cluster(setup, folder))
            stack.enter_context(flywheel(setup, folder, arguments.home.resolve(), environment))
            check(setup, environment)
        bodies = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bodies"
        bodies.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
        for number in range(arguments.rounds):
            for setup in setups:
                for connections in (64, 1):
                    measure(setup, connections, arguments.seconds, bodies, warm_up=number == 0)
    print_table(setups)
    return 0


@contextlib.contextmanager
def cluster(setup: Setup, folder: Path) -> Iterator[dict[str, str]]:
    """Ray nodes of one core each, as `ray start` starts them; yields the environment that reaches them."""
    address = f"127.0.0.1:{free_port()}"
    common = {
        **os.environ,
        "RAY_ADDRESS": address,
        "RAY_USAGE_STATS_ENABLED": "0",
        # A cluster of our own: nobody else may join it, and we use no other's token.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(setup.port + 1),
    }
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(setup.nodes):
            # Two nodes on one machine: HAProxy's ports must differ. Machines of their own need none of this.
            own = {f"RAY_SERVE_HAPROXY_{kind}_PORT": str(free_port()) for kind in ("METRICS", "STATS")}
            where = ["--head", "--port", address.rpartition(":")[2]] if number == 0 else ["--address", address]
            command = [
                BIN / "ray", "start", *where, "--node-ip-address=127.0.0.1", "--num-cpus=1", "--block",
                "--object-store-memory=100000000", "--include-dashboard=false", "--disable-usage-stats",
                f"--temp-dir={folder}",
            ]  # fmt: skip
            with (folder / f"node{number}.log").open("w") as log:
                nodes.append(subprocess.Popen(command, env={**common, **own}, stdout=log, stderr=log))  # type: ignore[arg-type]
            wait_for_nodes(common, number + 1, nodes[-1], folder / f"node{number}.log")
        yield common
    finally:
        for node in reversed(nodes):
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            node.wait(60)
