"""Injects faults into a server: a replica that is killed, and clients that hang up, stall or set deadlines.

    python loadtests/faults.py             about a minute; needs trained models (make serve trains them)
    FLYWHEEL_HOME=/srv/flywheel python loadtests/faults.py

Prints each figure beside its bound and exits 1 when one is missed. The server runs on a copy of the home, on a free
port, with Flywheel's defaults, except that it accepts larger requests, one of which keeps the model busy for long.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # it is also run as a script

from loadtests.arrivals import OpenLoopResult, percentile
from loadtests.open_loop import offer
from loadtests.peers import PeerError
from loadtests.servers import champion_bundle, flywheel, free_port

PATH = "/v2/models/intent/predict"
TIMEOUT = "x-request-timeout-seconds"
DEADLINE_S = 5.0
RATE = 30  # requests a second: so few that one replica serves them, and only a fault can make one fail
ENVIRONMENT = {"FLYWHEEL_LIMITS__TEXTS": "4096", "FLYWHEEL_LIMITS__DEADLINE_S": str(DEADLINE_S)}
Check = tuple[str, float, float]  # title, value, upper bound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    rows: list[Check] = []
    with server() as (url, pid):
        for number, fault in enumerate(FAULTS, 1):
            print(f"{number}/{len(FAULTS)} {fault.__doc__}", file=sys.stderr)
            rows += fault(url, pid)
            rows.append((f"after {fault.__name__.replace('_', ' ')}: a good request fails", _status(url) != 200, 0))
    print(f"\n{'':8}{'what':66}{'value':>10}{'at most':>10}")
    for what, value, bound in rows:
        print(f"{'met' if value <= bound else 'MISSED':8}{what:66}{value:10.4g}{bound:10.4g}")
    return 0 if all(value <= bound for _, value, bound in rows) else 1


def killed_replica(url: str, pid: int) -> list[Check]:
    """kill -9 of one of the intent replicas under load, until another has replaced it"""
    victims = replicas(pid)
    if len(victims) < 2:
        sys.exit("the intent task needs two replicas: one to kill, one to answer")
    killer = threading.Timer(2, os.kill, (victims[0], signal.SIGKILL))
    killer.start()
    result = offer(url, RATE, 15)
    gone = eventually(lambda: len(set(replicas(pid)) - {victims[0]}) >= len(victims), 60)
    return [
        *other_clients("a replica was killed", result, 2000),
        ("the killed replica was not replaced within 60 s", not gone, 0),
    ]


def clients_that_leave(url: str, pid: int) -> list[Check]:
    """clients that hang up while their texts wait: the texts are dropped"""
    before = dropped(url)
    connections = [_sent(url, post(large(f"leaver {client}"))) for client in range(2)]
    time.sleep(1)
    for connection in connections:
        connection.close()
    seen = eventually(lambda: dropped(url) - before >= 1000, 10)
    return [("texts of clients that left were not dropped", not seen, 0)]


def slow_clients(url: str, pid: int) -> list[Check]:
    """200 clients that stop in the middle of their request, while others send theirs; half of them never go on"""
    request = post({"text": "where is my order 771?"})
    connections = [_sent(url, request[:-5]) for _ in range(200)]
    slow, stalled = connections[:100], connections[100:]
    result = offer(url, RATE, DEADLINE_S / 2)
    for connection in slow:
        connection.sendall(request[-5:])
    unanswered = sum(not connection.recv(12).endswith(b"200") for connection in slow)
    time.sleep(DEADLINE_S)
    told, _, _ = select.select(stalled, [], [], 0)
    for connection in connections:
        connection.close()
    return [
        *other_clients("200 clients were slow", result, 500),
        ("slow clients that were not answered 200 once they went on", unanswered, 0),
        ("stalled clients still waited for after the deadline", len(stalled) - len(told), 0),
    ]


def deadlines(url: str, pid: int) -> list[Check]:
    """the client's deadline: tiny, invalid, and larger than the server's"""
    rows: list[Check] = []
    for count in (1, 64):
        body = {"texts": [f"was order {time.time_ns()} of mine sent {n} days ago" for n in range(count)]}
        began = time.perf_counter()
        wrong = _status(url, body, {TIMEOUT: "0.001"}) != 504
        seconds = time.perf_counter() - began
        rows += [(f"0.001 s, {count} texts: not 504", wrong, 0), ("time to that answer, ms", seconds * 1000, 100)]
    invalid = ("0", "-1", "nan", "soon", "", "1e-400")
    rows.append(("invalid values that were not answered 422", sum(
        _status(url, headers={TIMEOUT: value}) != 422 for value in invalid), 0))  # fmt: skip
    for value in ("3600", "inf"):
        rows.append((f"{value} s and a quick request: not 200", _status(url, headers={TIMEOUT: value}) != 200, 0))
    began = time.perf_counter()
    wrong = _status(url, large("bounded"), {TIMEOUT: "3600"}) != 504
    seconds = time.perf_counter() - began
    return [
        *rows,
        ("3600 s and more than the server can do in time: not 504", wrong, 0),
        ("time to that answer, s", seconds, DEADLINE_S + 1),
    ]


def other_clients(meanwhile: str, result: OpenLoopResult, max_p99_ms: float) -> list[Check]:
    failed = result.other.total() + result.lost + result.hung
    if failed or result.shed:  # shedding is no failure: the machine may be too slow for the load
        print(f"  while {meanwhile}: {result.counts()}", file=sys.stderr)
    return [
        (f"requests that failed while {meanwhile}", failed, 0),
        ("their p99, ms", percentile(result.accepted, 99) or float("inf"), max_p99_ms),
    ]


FAULTS = (killed_replica, clients_that_leave, slow_clients, deadlines)


# --- the server ------------------------------------------------------------------------------------------------------


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """URL and process id of a `flywheel up` on a copy of the home; it is ended with the block."""
    port = free_port()
    print("starting a server, about 20 s", file=sys.stderr)
    try:
        champion_bundle()
        with flywheel(port, ENVIRONMENT) as process:
            yield f"http://127.0.0.1:{port}", process.pid
    except PeerError as error:
        sys.exit(str(error))


def replicas(pid: int) -> list[int]:
    """The processes under `pid` that serve intent."""
    table = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    processes = [line.split(maxsplit=2) for line in table.splitlines()[1:]]
    parents = {int(own): int(parent) for own, parent, *_ in processes}

    def below(one: int) -> bool:
        return one == pid or (one in parents and below(parents[one]))

    return [int(own) for own, _, *name in processes if "ServeReplica:intent" in "".join(name) and below(int(own))]


def dropped(url: str) -> float:
    """Texts dropped since the server's start because their client had disconnected."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        metrics = response.read().decode()
    return sum(map(float, re.findall(r'^flywheel_dropped_texts_total\{.*"cancelled".*\} (\S+)$', metrics, re.M)))


# --- the clients -----------------------------------------------------------------------------------------------------


def large(name: str) -> dict[str, Any]:
    """A request that takes longer than the server's deadline, with texts that no other request has."""
    return {"texts": [f"{name} {time.time_ns()} {n}" + " where is my order" * 20 for n in range(2000)]}


def post(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def _sent(url: str, request: bytes) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(request)
    return connection


def _status(url: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> int:
    """The status of one request; 0 when there is no answer."""
    content = json.dumps(body or {"text": "where is my order?"}).encode()
    request = urllib.request.Request(url + PATH, content, {"content-type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
