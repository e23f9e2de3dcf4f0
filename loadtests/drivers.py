"""Load over HTTP, by `wrk` if it is installed, else by a bundled driver, which is slower and understates a server."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

LUA = Path(__file__).with_name("predict.lua")
TIMEOUT_S = 10


@dataclass(frozen=True)
class Call:
    """One POST of JSON. Latency is reported for each `kind`, which contains no tab and no blank."""

    path: str
    body: bytes
    kind: str = "all"


class LoadError(Exception):
    """Raised when the load generator gives no result."""


def name() -> str:
    return "wrk" if shutil.which("wrk") else "the bundled driver (slower: install wrk for an honest figure)"


def load(url: str, calls: Sequence[Call], connections: int, seconds: float, *, by_kind: bool = False) -> dict[str, Any]:
    """Send the calls in turn, repeatedly, for `seconds`; each connection sends its next when the last is answered.

    Returns `rps` (answers below 400), `p50_ms`, `p95_ms`, `p99_ms` (of all answers), `errors`, and with `by_kind`
    `kinds`: for each kind `count`, `p50_ms`, `p95_ms` and `p99_ms` of its answers below 400. Raises LoadError.
    """
    measured = _wrk if shutil.which("wrk") else _bundled
    return measured(url, calls, connections, seconds, by_kind)


def _wrk(url: str, calls: Sequence[Call], connections: int, seconds: float, by_kind: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder) / "bodies"
        bodies.write_bytes(b"\n".join(b"\t".join((c.kind.encode(), c.path.encode(), c.body)) for c in calls))
        threads = connections if by_kind else 1  # with one connection a thread knows which request an answer belongs to
        whole = max(1, round(seconds))
        command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{whole}s"]
        command += ["--timeout", f"{TIMEOUT_S}s", "-s", str(LUA), url]
        environment = {**os.environ, "BENCH_BODIES": str(bodies), "BENCH_SECONDS": str(whole)}
        environment |= {"BENCH_KINDS": "1"} if by_kind else {}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = re.search(r"^RESULT (\S+) (\S+) (\S+) (\S+) (\d+)$", done.stdout, re.M)
    if found is None:
        raise LoadError(f"wrk gave no result:\n{done.stdout}{done.stderr}")
    result: dict[str, Any] = dict(zip(("rps", "p50_ms", "p95_ms", "p99_ms"), map(float, found.groups()), strict=False))
    result["errors"] = int(found[5])
    if not result["p50_ms"]:  # no answer at all; wrk counts these as errors only after its timeout
        result |= {**_cuts([seconds]), "errors": max(connections, result["errors"])}
    if by_kind:
        names = ("count", "p50_ms", "p95_ms", "p99_ms")
        kinds = re.findall(r"^KIND (\S+) (\S+) (\S+) (\S+) (\S+)$", done.stdout, re.M)
        result["kinds"] = {kind: dict(zip(names, map(float, values), strict=True)) for kind, *values in kinds}
    return result


def _bundled(url: str, calls: Sequence[Call], connections: int, seconds: float, by_kind: bool) -> dict[str, Any]:
    times: list[float] = []
    kinds: dict[str, list[float]] = {}
    errors: list[int] = []

    def note(index: int, status: int, took: float, _: bytes) -> None:
        if status:
            times.append(took)
        if status == 200:
            kinds.setdefault(calls[index].kind, []).append(took)
        else:
            errors.append(status)

    elapsed = drive(url, calls, connections, seconds, note)
    result: dict[str, Any] = {"rps": sum(map(len, kinds.values())) / elapsed, "errors": len(errors)}
    result |= _cuts(times or [seconds])
    if by_kind:
        result["kinds"] = {kind: {"count": len(values), **_cuts(values)} for kind, values in kinds.items()}
    return result


def _cuts(times: list[float]) -> dict[str, float]:
    """Nearest-rank percentiles in milliseconds; `times` are in seconds."""
    ordered = sorted(times)
    return {f"p{percent}_ms": ordered[math.ceil(percent / 100 * len(ordered)) - 1] * 1000 for percent in (50, 95, 99)}


def once(url: str, calls: Sequence[Call]) -> None:
    """Send each call once, one after another, and ignore the answers."""
    for call in calls:
        request = urllib.request.Request(url + call.path, call.body, {"content-type": "application/json"})
        with suppress(OSError), urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            response.read()


def drive(
    url: str,
    calls: Sequence[Call],
    connections: int,
    seconds: float,
    each: Callable[[int, int, float, bytes], None],
    once: bool = False,
) -> float:
    """Send the calls from threads of this process; `each(index of the call, status, seconds, body)` runs in the thread.

    The status is 0 if the connection failed or timed out. The calls are repeated until `seconds` are over; with `once`
    each is sent once at most. Returns the elapsed seconds.
    """
    host, port = url.removeprefix("http://").split(":")
    until = time.perf_counter() + seconds
    stop = threading.Event()

    def client(number: int) -> None:
        connection = HTTPConnection(host, int(port), timeout=TIMEOUT_S)
        turn = number
        while time.perf_counter() < until and not stop.is_set() and not (once and turn >= len(calls)):
            index = turn % len(calls)
            started, status, body = time.perf_counter(), 0, b""
            try:
                connection.request("POST", calls[index].path, calls[index].body, {"content-type": "application/json"})
                response = connection.getresponse()
                body, status = response.read(), response.status
            except (OSError, HTTPException):
                connection.close()
            each(index, status, time.perf_counter() - started, body)
            turn += connections
        connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        try:
            for done in [pool.submit(client, number) for number in range(connections)]:
                done.result()
        finally:
            stop.set()
    return time.perf_counter() - began
