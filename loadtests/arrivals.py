"""The client of an open-loop test: random arrivals at a given rate, whatever the answers do.

Hand-written for HTTP/1.1 answers of known length, since it shares the machine with the server it judges: 0.1 ms a
request.
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

try:  # half the client's time a request
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop  # type: ignore[assignment]

__all__ = ["HUNG_S", "OpenLoop", "Outcome", "new_event_loop", "percentile"]

HUNG_S = 15.0
_MOST_CONNECTIONS = 3500  # HAProxy, as Ray Serve configures it, takes 4096
_IDLE_S = 3.0  # shorter than servers keep idle connections, so that none is closed as a request goes out on it
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)


def percentile(values: Sequence[float], q: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    return round(sorted(values)[max(0, math.ceil(len(values) * q / 100) - 1)], 2) if values else None


def _times() -> array[float]:
    return array("d")


@dataclass
class Outcome:
    """How each request ended; times in milliseconds since it was due."""

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
    """A kept-alive connection with at most one request on it, due at `due`; idle when that is 0."""

    def __init__(self, load: OpenLoop, due: float, request: bytes):
        self.load, self.due, self.request = load, due, request
        self.received, self.idle_since, self.open = b"", 0.0, True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.send(self.due, self.request)

    def send(self, due: float, request: bytes) -> None:
        self.due, self.request = due, b""
        self.load.outcome.lag.append((time.monotonic() - due) * 1000)
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
        if found and _LENGTH.search(head) is None:  # an answer that ends with its connection
            self.finish(head, body)
        self.load.closed(self)

    def finish(self, head: bytes, body: bytes) -> None:
        due, self.due, self.received = self.due, 0.0, b""
        if due:
            self.load.answered(self, due, head, body)


class OpenLoop:
    """Sends each request when it is due, over as many connections as that needs, `most` at most."""

    def __init__(self, url: str, requests: Iterator[bytes], most: int):
        address = urlsplit(url)
        if address.scheme != "http" or not address.hostname:
            raise SystemExit(f"{url}: give the server's address as http://host:port")
        try:
            with socket.create_connection((address.hostname, address.port or 80), timeout=HUNG_S) as probe:
                self._address = probe.getpeername()[:2]
        except OSError as error:
            raise SystemExit(f"No server answers at {url} ({error}). Start one with: make serve") from None
        self._requests = requests
        self._most = min(most, _MOST_CONNECTIONS)
        self._connections: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._unsent: deque[tuple[float, bytes]] = deque()
        self.outcome = Outcome()

    async def run(self, rate: float, seconds: float) -> Outcome:
        """Arrivals at `rate` a second for `seconds`, then wait for what is under way."""
        began = time.monotonic()
        watching = asyncio.create_task(self._watch(began, seconds))
        due = began
        while (due := due + random.expovariate(rate)) < began + seconds:
            if due > (now := time.monotonic()):
                # uvloop takes a sleep below half a millisecond for none, and would spin.
                await asyncio.sleep(max(due - now, 0.001))
            elif self.outcome.sent % 32 == 0:
                await asyncio.sleep(0)  # late already: let answers in between
            self.outcome.sent += 1
            self._send(due, next(self._requests))
        while self._opening or self._unsent or any(c.due for c in self._connections):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        watching.cancel()
        for connection in list(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        return self.outcome

    def _send(self, due: float, request: bytes) -> None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open and time.monotonic() - connection.idle_since < _IDLE_S:
                return connection.send(due, request)
            connection.transport.close()
        if len(self._connections) + len(self._opening) < self._most:
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
            self.outcome.hung += 1
        except OSError:
            self.outcome.lost += 1
        else:
            if connection.open:
                self._connections.add(connection)

    def answered(self, connection: _Connection, due: float, head: bytes, body: bytes) -> None:
        milliseconds = (time.monotonic() - due) * 1000
        status = head[9:12]
        if status == b"200":
            self.outcome.accepted.append(milliseconds)
        elif status == b"503" and b"\r\nretry-after: " in head.lower() and b'"overloaded"' in body:
            self.outcome.shed.append(milliseconds)
        else:
            self.outcome.other[f"{status.decode()} {body[:120].decode(errors='replace')}"] += 1
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
            self.outcome.lost += 1
            connection.due = 0.0
        if self._unsent:
            self._send(*self._unsent.popleft())

    async def _watch(self, began: float, seconds: float) -> None:
        """Give up on what hangs, and show how it goes."""
        shown = began
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            for connection in [c for c in self._connections if c.due and now - c.due > HUNG_S]:
                self.outcome.hung += 1
                connection.due = 0.0
                connection.transport.abort()
            while self._unsent and now - self._unsent[0][0] > HUNG_S:
                self._unsent.popleft()
                self.outcome.hung += 1
            if now - shown >= (1 if sys.stderr.isatty() else 15):
                shown = now
                _show(now - began, seconds, self.outcome)


def _show(elapsed: float, seconds: float, outcome: Outcome) -> None:
    """One line of progress: a bar, the time left, how it goes."""
    bar = "#" * int(20 * min(1.0, elapsed / seconds))
    bad = outcome.other.total() + outcome.lost + outcome.hung
    line = (
        f"[{bar:<20}] {max(0, round(seconds - elapsed)):4} s left   sent {outcome.sent}   "
        f"accepted {len(outcome.accepted)}   shed {len(outcome.shed)}   failed {bad}"
    )
    print(f"\r{line:<110}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr)
