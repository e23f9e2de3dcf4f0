"""Measures the intent task with more replicas and a second Ray node: `python loadtests/cluster.py`. Needs `wrk`.

Starts Ray clusters with `ray start` on this machine, and a Flywheel that joins each: one replica, two replicas on one
node, two replicas on two nodes. Measures them in turns at 64 connections and at one. Checks that each node's HAProxy
answers, that every node has its replicas, and that each replica answered. The nodes share this machine's cores: the
figures show what a second node costs, not what a second machine adds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TASK = "intent"
PATH = f"/v2/models/{TASK}/predict"
START_TIMEOUT_S = 240
TEXTS = (
    "How do I track my parcel?", "I was charged twice for one order", "cancel my subscription please",
    "the app says my card is not valid, but it is", "can I change the delivery address?", "where is my refund",
)  # fmt: skip


class Setup:
    """A cluster of `nodes` nodes with `replicas` replicas of the task. Each node's HAProxy listens at one of `urls`."""

    def __init__(self, name: str, nodes: int, replicas: int, port: int):
        self.name, self.nodes, self.replicas, self.port = name, nodes, replicas, port
        self.urls = [f"http://127.0.0.1:{port + node}" for node in range(nodes)]
        self.statistics = [f"http://127.0.0.1:{free_port()}/stats;csv" for _ in range(nodes)]
        self.loads: dict[int, list[tuple[float, float, int]]] = {1: [], 64: []}  # requests/s, p50 ms, errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=os.environ.get("FLYWHEEL_HOME", ROOT / "var"))
    parser.add_argument("--port", type=int, default=8480, help="this and the next nine are used")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk sends the load, and is not installed: apt-get install wrk, or brew install wrk.")
    setups = [
        Setup("1 replica", 1, 1, arguments.port),
        Setup("2 replicas", 1, 2, arguments.port + 2),
        Setup("2 replicas, 2 nodes", 2, 2, arguments.port + 4),
    ]
    with contextlib.ExitStack() as stack:
        # A short path: HAProxy's and Ray's sockets are below it, and a socket's path is limited to some 100 characters.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fw-", dir="/tmp")))
        bodies = folder / "bodies"
        bodies.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
        for number, setup in enumerate(setups):
            own = folder / str(number)
            own.mkdir()
            environment = stack.enter_context(cluster(setup, own))
            stack.enter_context(flywheel(setup, own, Path(arguments.home).resolve(), environment))
            check_placement(setup, environment)
        for setup in setups:
            wrk(setup, 64, 2, bodies)
        for _ in range(arguments.rounds):
            for setup in setups:
                for connections in (64, 1):
                    setup.loads[connections].append(wrk(setup, connections, arguments.seconds, bodies))
        print_table(setups)
        complete = [check_routing(setup) for setup in setups]
        return 0 if all(complete) else 1


@contextlib.contextmanager
def cluster(setup: Setup, folder: Path) -> Iterator[dict[str, str]]:
    """Start Ray nodes, each with the cores for its replicas; yields the environment that connects to the cluster."""
    address = f"127.0.0.1:{free_port()}"
    common = {
        **os.environ,
        "RAY_ADDRESS": address,
        "RAY_USAGE_STATS_ENABLED": "0",
        # A token of its own, so that no other process can join this cluster.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(setup.port + 1),
    }
    nodes = []
    try:
        for number in range(setup.nodes):
            # HAProxy's ports must differ between two nodes on one machine.
            own = {
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
                "RAY_SERVE_HAPROXY_STATS_PORT": str(urlsplit(setup.statistics[number]).port),
            }
            head = ["--head", "--port", address.rpartition(":")[2], "--include-dashboard=false"]
            command = [
                BIN / "ray", "start", *(["--address", address] if number else head), "--block",
                "--node-ip-address=127.0.0.1", f"--num-cpus={setup.replicas // setup.nodes}",
                "--object-store-memory=100000000", "--disable-usage-stats", f"--temp-dir={folder}",
            ]  # fmt: skip
            with (folder / f"node{number}.log").open("w") as log:
                nodes.append(subprocess.Popen(command, env={**common, **own}, stdout=log, stderr=log))
            wait_until(
                lambda n=number + 1: nodes[-1].poll() is not None or alive_nodes(common) == n,
                f"node {number} of {setup.name}",
            )
            if nodes[-1].poll() is not None:
                sys.exit(f"{setup.name}: {(folder / f'node{number}.log').read_text()}")
        yield common
    finally:
        for node in reversed(nodes):
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            try:
                node.wait(60)
            except subprocess.TimeoutExpired:
                node.kill()


@contextlib.contextmanager
def flywheel(setup: Setup, folder: Path, home: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run `flywheel up` on the cluster, with a copy of `home`, until the block ends; ready at every node's HAProxy."""
    for part in ("releases", "bundles"):
        shutil.copytree(home / part, folder / "home" / part)
    configuration = folder / "flywheel.yaml"
    # No answer cache: six texts are sent again and again.
    configuration.write_text(f"tasks: {{{TASK}: {{replicas: {setup.replicas}}}}}\ncache: {{texts: 0}}\n")
    settings = {
        "FLYWHEEL_HOME": str(folder / "home"),
        "FLYWHEEL_RAY__ADDRESS": environment["RAY_ADDRESS"],
        "FLYWHEEL_RAY__CPUS": "1",
    }
    command = [BIN / "flywheel", "up", "--config", str(configuration), "--port", str(setup.port)]
    with (folder / "flywheel.log").open("w") as log:
        server = subprocess.Popen(command, env={**environment, **settings}, stdout=log, stderr=log)
    try:
        for url in setup.urls:
            wait_until(lambda url=url: server.poll() is not None or answers(url), f"{setup.name} at {url}")
        if server.poll() is not None:
            sys.exit(f"{setup.name}: {(folder / 'flywheel.log').read_text()}")
        yield
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def answers(url: str) -> bool:
    body = json.dumps({"text": TEXTS[0]}).encode()
    request = urllib.request.Request(url + PATH, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(json.load(response)["predictions"])
    except OSError:
        return False


def in_cluster(environment: dict[str, str], code: str) -> str:
    """What `code` prints in a process that is connected to the cluster: a process can join one cluster only."""
    script = f"import ray; ray.init(logging_level='ERROR', log_to_driver=False)\n{code}"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    return done.stdout.strip()


def alive_nodes(environment: dict[str, str]) -> int:
    return int(in_cluster(environment, "print(sum(node['Alive'] for node in ray.nodes()))") or 0)


def check_placement(setup: Setup, environment: dict[str, str]) -> None:
    """Print which node each replica is on; exit unless every node has one."""
    code = f"""
from ray.serve.context import _get_global_client
deployment = _get_global_client().get_serve_details()["applications"]["{TASK}"]["deployments"]["{TASK}"]
print(*(replica["node_id"][:8] for replica in deployment["replicas"] if replica.get("node_id")))"""
    wait_until(lambda: len(in_cluster(environment, code).split()) == setup.replicas, f"{setup.name}: its replicas")
    nodes = in_cluster(environment, code).split()
    print(f"{setup.name}: on nodes {', '.join(nodes)}", flush=True)
    if len(set(nodes)) != setup.nodes:
        sys.exit(f"{setup.name}: a node has no replica")


def check_routing(setup: Setup) -> bool:
    """Print how many requests each node's HAProxy sent to each replica; False if a replica got none."""
    complete = True
    for number, url in enumerate(setup.statistics):
        with urllib.request.urlopen(url, timeout=5) as response:
            rows = list(csv.DictReader(response.read().decode().removeprefix("# ").splitlines()))
        sent = [int(row["stot"]) for row in rows if f"{TASK}-{TASK}" in row["svname"]]
        print(f"{setup.name}: HAProxy of node {number} sent {' and '.join(map(str, sent))} requests to the replicas")
        complete &= len(sent) == setup.replicas and all(sent)
    return complete


def wrk(setup: Setup, connections: int, seconds: int, bodies: Path) -> tuple[float, float, int]:
    """Requests a second, median latency in ms, and errors, over connections to all nodes' HAProxies in equal parts."""
    each = max(1, connections // setup.nodes)
    urls = setup.urls[: connections // each]
    environment = {**os.environ, "BENCH_PATH": PATH, "BENCH_BODIES": str(bodies), "BENCH_SECONDS": str(seconds)}
    commands = [
        ["wrk", "-t1", f"-c{each}", f"-d{seconds}s", "-s", str(ROOT / "loadtests" / "predict.lua"), url] for url in urls
    ]
    running = [subprocess.Popen(c, env=environment, stdout=subprocess.PIPE, text=True) for c in commands]
    results = []
    for process in running:
        found = re.search(r"RESULT (\S+) (\S+) \S+ \S+ (\d+)", process.communicate()[0])
        if found is None:
            sys.exit(f"{setup.name}: wrk gave no result")
        results.append(found.groups())
    rates, p50s, errors = zip(*results, strict=True)
    return sum(map(float, rates)), statistics.mean(map(float, p50s)), sum(map(int, errors))


def print_table(setups: list[Setup]) -> None:
    columns = ("set-up", "c=64 requests/s", "against the first", "c=1 p50", "against the first", "errors")
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    base = setups[0]
    for setup in setups:
        rates = [load[0] for load in setup.loads[64]]
        p50s = [load[1] for load in setup.loads[1]]
        faster = [rate / first[0] for rate, first in zip(rates, base.loads[64], strict=True)]
        later = [p50 / first[1] for p50, first in zip(p50s, base.loads[1], strict=True)]
        errors = sum(load[2] for loads in setup.loads.values() for load in loads)
        median = statistics.median
        print(f"| {setup.name} | {median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f}) | {median(faster):.2f} "
              f"| {median(p50s):.2f} ms | {median(later):.2f} | {errors} |")  # fmt: skip


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not true():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not ready within {START_TIMEOUT_S} s")
        time.sleep(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
