"""An open-loop HTTP client: requests arrive at random at a given mean rate, independent of the answers.

It parses only HTTP/1.1 answers with a content-length, which takes 0.1 ms of processor time a request: it shares the
machine with the server under test.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import socket
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

try:  # halves the client's processor time a request
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop  # type: ignore[assignment]

__all__ = ["HUNG_S", "OpenLoop", "OpenLoopResult", "new_event_loop", "percentile"]

HUNG_S = 15.0
_MAX_CONNECTIONS = 3500  # below HAProxy's limit of 4096 in Ray Serve's configuration
_IDLE_S = (
    3.0  # shorter than any server's keep-alive timeout, so that no connection is closed while a request is sent on it
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)


def percentile(values: Sequence[float], q: float) -> float | None:
    """The nearest-rank percentile `q` (0 to 100) of `values`; None if there are none."""
    return round(sorted(values)[max(0, math.ceil(len(values) * q / 100) - 1)], 2) if values else None


def _times() -> array[float]:
    return array("d")


@dataclass
class OpenLoopResult:
    """How each request ended. `accepted`, `shed` and `lag` (until it was sent) are in milliseconds since it was due."""

    sent: int = 0
    accepted: array[float] = field(default_factory=_times)
    shed: array[float] = field(default_factory=_times)
    lag: array[float] = field(default_factory=_times)
    other: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    hung: int = 0

    def counts(self) -> dict[str, Any]:
        return {
            "sent": self.sent, "accepted": len(self.accepted), "shed": len(self.shed),
            "other": self.other.total(), "other_answers": dict(self.other), "lost": self.lost, "hung": self.hung,
        }  # fmt: skip


class _Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request in flight. `due` is when that was due; 0 if idle."""

    def __init__(self, load: OpenLoop, due: float, request: bytes):
        self.load, self.due, self.request = load, due, request
        self.received, self.idle_since, self.open = b"", 0.0, True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send(self.due, self.request)

    def send(self, due: float, request: bytes) -> None:
        self.due, self.request = due, b""
        self.load.result.lag.append((time.monotonic() - due) * 1000)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received = self.received + data if self.received else data
        head, found, body = self.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if found else None
        if length is None or len(body) < int(length[1]):
            return
        if not self.due or b"\r\nconnection: close" in head.lower():
            self.open = False
            self.transport.close()
        self.finish(head, body)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        head, found, body = self.received.partition(b"\r\n\r\n")
        if found and _LENGTH.search(head) is None:  # without a content-length the answer ends with the connection
            self.finish(head, body)
        self.load.closed(self)

    def finish(self, head: bytes, body: bytes) -> None:
        due, self.due, self.received = self.due, 0.0, b""
        if due:
            self.load.answered(self, due, head, body)


class OpenLoop:
    """Sends each request when it is due. Opens connections as needed, up to `max_connections`."""

    def __init__(self, url: str, requests: Iterator[bytes], max_connections: int):
        address = urlsplit(url)
        if address.scheme != "http" or not address.hostname:
            raise SystemExit(f"{url}: give the server's address as http://host:port")
        try:
            with socket.create_connection((address.hostname, address.port or 80), timeout=HUNG_S) as probe:
                self._address = probe.getpeername()[:2]
        except OSError as error:
            raise SystemExit(f"No server answers at {url} ({error}). Start one with: make serve") from None
        self._requests = requests
        self._max_connections = min(max_connections, _MAX_CONNECTIONS)
        self._connections: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._unsent: deque[tuple[float, bytes]] = deque()
        self.result = OpenLoopResult()

    async def run(self, rate: float, seconds: float) -> OpenLoopResult:
        """Send `rate` requests a second on average for `seconds`, then wait for the answers in flight."""
        began = time.monotonic()
        watching = asyncio.create_task(self._watch(began, seconds))
        due = began
        while (due := due + random.expovariate(rate)) < began + seconds:
            if due > (now := time.monotonic()):
                # uvloop rounds a sleep below half a millisecond to 0, and would spin.
                await asyncio.sleep(max(due - now, 0.001))
            elif self.result.sent % 32 == 0:
                await asyncio.sleep(0)  # late already: let the event loop read answers
            self.result.sent += 1
            self._send(due, next(self._requests))
        while self._opening or self._unsent or any(c.due for c in self._connections):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        watching.cancel()
        for connection in list(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        return self.result

    def _send(self, due: float, request: bytes) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open and time.monotonic() - connection.idle_since < _IDLE_S:
                return connection.send(due, request)
            connection.transport.close()
        if len(self._connections) + len(self._opening) < self._max_connections:
            task = asyncio.get_running_loop().create_task(self._open(due, request))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self._unsent.append((due, request))

    async def _open(self, due: float, request: bytes) -> None:
        connection = _Connection(self, due, request)
        try:
            async with asyncio.timeout(HUNG_S):
                await asyncio.get_running_loop().create_connection(lambda: connection, *self._address)
        except TimeoutError:
            self.result.hung += 1
        except OSError:
            self.result.lost += 1
        else:
            if connection.open:
                self._connections.add(connection)

    def answered(self, connection: _Connection, due: float, head: bytes, body: bytes) -> None:
        milliseconds = (time.monotonic() - due) * 1000
        status = head[9:12]
        if status == b"200":
            self.result.accepted.append(milliseconds)
        elif status == b"503" and b"\r\nretry-after: " in head.lower() and b'"overloaded"' in body:
            self.result.shed.append(milliseconds)
        else:
            self.result.other[f"{status.decode()} {body[:120].decode(errors='replace')}"] += 1
        if not connection.open:
            return
        if self._unsent:
            connection.send(*self._unsent.popleft())
        else:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)

    def closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if connection.due:
            self.result.lost += 1
            connection.due = 0.0
        if self._unsent:
            self._send(*self._unsent.popleft())

    async def _watch(self, began: float, seconds: float) -> None:
        """Abort requests that have no answer after HUNG_S, and print the progress."""
        shown = began
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            for connection in [c for c in self._connections if c.due and now - c.due > HUNG_S]:
                self.result.hung += 1
                connection.due = 0.0
                connection.transport.abort()
            while self._unsent and now - self._unsent[0][0] > HUNG_S:
                self._unsent.popleft()
                self.result.hung += 1
            if now - shown >= (1 if sys.stderr.isatty() else 15):
                shown = now
                _show(now - began, seconds, self.result)


def _show(elapsed: float, seconds: float, result: OpenLoopResult) -> None:
    """Print one line: a bar, the time left, the counts so far."""
    bar = "#" * int(20 * min(1.0, elapsed / seconds))
    bad = result.other.total() + result.lost + result.hung
    line = (
        f"[{bar:<20}] {max(0, round(seconds - elapsed)):4} s left   sent {result.sent}   "
        f"accepted {len(result.accepted)}   shed {len(result.shed)}   failed {bad}"
    )
    print(f"\r{line:<110}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr)
