"""Clients that misbehave: they hang up, stall in the middle of a request, or set hostile deadlines."""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Any

from loadtests.arrivals import OpenLoopResult, percentile
from loadtests.faults.bounds import DEADLINE_S
from loadtests.faults.clients import PREDICT, post
from loadtests.faults.server import eventually
from loadtests.open_loop import offer
from loadtests.servers import series_of

TIMEOUT = "x-request-timeout-seconds"
RATE = 30  # requests a second: so few that one replica serves them, and only a fault can make one fail
Check = tuple[str, float, float]
"""title, value, upper bound"""


def checks_of(url: str) -> list[Check]:
    """All that such clients are to see, and that others are not; each with its bound."""
    rows: list[Check] = []
    for misbehave in MISBEHAVING:
        print(f"  {misbehave.__doc__}", file=sys.stderr)
        rows += misbehave(url)
        rows.append((f"after {misbehave.__name__.replace('_', ' ')}: a good request fails", _status(url) != 200, 0))
    return rows


def clients_that_leave(url: str) -> list[Check]:
    """clients that hang up while their texts wait: the texts are dropped"""
    before = dropped(url)
    connections = [_sent(url, as_bytes(large(f"leaver {client}"))) for client in range(2)]
    time.sleep(1)
    for connection in connections:
        connection.close()
    seen = eventually(lambda: dropped(url) - before >= 1000, 10)
    return [("texts of clients that left were not dropped", not seen, 0)]


def slow_clients(url: str) -> list[Check]:
    """200 clients that stop in the middle of their request, while others send theirs; half of them never go on"""
    request = as_bytes({"text": "where is my order 771?"})
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


def deadlines(url: str) -> list[Check]:
    """the client's deadline: tiny, invalid, and larger than the server's"""
    rows: list[Check] = []
    for count, allowed in ((1, (504, 200)), (64, (504,))):  # one text may be answered early, within that time
        body = {"texts": [f"was order {time.time_ns()} of mine sent {n} days ago" for n in range(count)]}
        began = time.perf_counter()
        wrong = _status(url, body, {TIMEOUT: "0.001"}) not in allowed
        seconds = time.perf_counter() - began
        rows += [
            (f"0.001 s, {count} texts: not {' or '.join(map(str, allowed))}", wrong, 0),
            ("time to that answer, ms", seconds * 1000, 100),
        ]
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


def dropped(url: str) -> float:
    """Texts dropped since the server's start because their client had disconnected."""
    found = series_of(url, "flywheel_dropped_texts_total")
    return sum(value for labels, value in found if labels["reason"] == "cancelled")


MISBEHAVING = (clients_that_leave, slow_clients, deadlines)


def large(name: str) -> dict[str, Any]:
    """A request that takes longer than the server's deadline, with texts that no other request has.

    They are of a word that no linear reader has seen, so that none of them is answered early.
    """
    return {"texts": [f"{name} {time.time_ns()} {n}" + " volcano" * 60 for n in range(4000)]}


def as_bytes(body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def _sent(url: str, request: bytes) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(request)
    return connection


def _status(url: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> int:
    """The status of one predict; BROKEN when there is no answer."""
    return post(url + PREDICT, body or {"text": "where is my order?"}, headers)
