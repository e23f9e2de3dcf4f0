"""A real server: started, stopped, asked, and looked into."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serve.rayserve.environment import has_haproxy
from tests.helpers.command import ROOT, free_port

GOOD = {"text": "where is my order 88231?"}
START_TIMEOUT_S = 180


@dataclass
class Server:
    """A running `flywheel up`: its address, its process and its home."""

    url: str
    process: subprocess.Popen[str]
    home: Path

    def post(self, path: str, **kwargs: object) -> httpx.Response:
        return httpx.post(self.url + path, timeout=30, **kwargs)  # type: ignore[arg-type]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30)


def start_server(home: Path, log: Path, *, tasks: Sequence[str] = (), **environment: str) -> Server:
    """`flywheel up` on a free port, ready; its output goes to `log`. With `tasks` it serves these; it starts sooner."""
    port = free_port()
    env = {**os.environ, "FLYWHEEL_HOME": str(home), **environment}
    if tasks:
        config = log.with_name(f"{log.name}.yaml")
        config.write_text(f"tasks: {{{', '.join(f'{task}: {{}}' for task in tasks)}}}\n")
        env["FLYWHEEL_CONFIG"] = str(config)
    with log.open("w") as output:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "flywheel", "up", "--port", str(port)],
            cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
    server = Server(f"http://127.0.0.1:{port}", process, home)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}:\n{log.read_text()}")
        try:
            answer = server.get("/v2/health/ready")
            if answer.status_code == 200 and "ready" in log.read_text():
                return server
            if answer.status_code != 200 and has_haproxy() and env.get("FLYWHEEL_RAY__TUNING") != "stock":
                error = answer.json()  # from the first moment; Ray Serve's own proxy would answer in text
                assert (answer.status_code, error["code"]) == (503, "not_ready"), answer.text
                assert int(answer.headers["retry-after"]) > 0
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    stop_server(server)
    raise AssertionError(f"the server was not ready within {START_TIMEOUT_S} s:\n{log.read_text()}")


def stop_server(server: Server, timeout: float = 30) -> int:
    """SIGINT, as Ctrl-C sends it; the exit code."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
    try:
        return server.process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(server.process.pid, signal.SIGKILL)
        raise


def answer_of(server: Server) -> Any:
    return server.post("/v2/models/intent/predict", json=GOOD).json()["predictions"]


def replicas(server: Server) -> list[int]:
    return children(server.process.pid, "ServeReplica:intent")


def log_of(pid: int) -> str:
    """All that a replica has logged so far, from the file that it has open."""
    opened = {file.resolve() for file in Path(f"/proc/{pid}/fd").iterdir()}
    (log,) = (file for file in opened if file.parent.name == "serve" and file.name.startswith("replica_"))
    return log.read_text()


def ask_haproxy(server: Server, command: str) -> str:
    """What HAProxy answers to `command` over its administrator's socket."""
    haproxy = max(children(server.process.pid, "haproxy -db"))  # the one that goes may still be there
    started_with = Path(f"/proc/{haproxy}/cmdline").read_text().split("\0")
    with socket.socket(socket.AF_UNIX) as admin, admin.makefile() as answer:
        admin.connect(str(Path(started_with[started_with.index("-f") + 1]).with_name("admin.sock")))
        admin.sendall(f"{command}\n".encode())
        return answer.read()


def sent_to_replicas(server: Server, what: str = "stot") -> list[int]:
    """How many requests HAProxy has sent to each of the task's replicas; or another column of its statistics."""
    rows = csv.DictReader(ask_haproxy(server, "show stat").removeprefix("# ").splitlines())
    return [int(row[what]) for row in rows if "SERVE_REPLICA_intent" in row["svname"]]


def children(pid: int, name: str) -> list[int]:
    """Descendants of `pid` whose command line has `name`."""
    table = subprocess.run(["ps", "-wweo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in table.splitlines()[1:]]
    family = {pid}
    for _ in rows:
        grown = family | {int(row[0]) for row in rows if int(row[1]) in family}
        if grown == family:
            break
        family = grown
    return [int(row[0]) for row in rows if int(row[0]) in family - {pid} and name in row[2]]
