"""The clients of a fault: predicts over 32 connections, each as soon as the last was answered, and corrections beside.

Every request and its answer is recorded, so that nothing is averaged away.
"""

from __future__ import annotations

import asyncio
import json
import random
import string
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, NamedTuple

from loadtests.arrivals import new_event_loop
from loadtests.faults.bounds import CONNECTIONS, DEADLINE_S, SLOW_S

PREDICT, FEEDBACK = "/v2/models/intent/predict", "/v2/models/intent/feedback"
BROKEN = 0
"""the status of a request that got no answer: its connection was refused, reset, closed, or silent for too long"""
_SILENT_S = DEADLINE_S + 5
_RECONNECT_S, _WATCH_S, _FEEDBACK_S = 0.05, 0.5, 0.2
_WORDS = [
    "where", "is", "my", "order", "and", "when", "will", "it", "come", "to", "my", "door",
    "please", "tell", "me", "how", "can", "i", "change", "the", "address", "of", "it",
]  # fmt: skip


class Answer(NamedTuple):
    """One request: when it was sent and answered (`time.monotonic`), and with which status."""

    sent: float
    ended: float
    status: int

    @property
    def wait_s(self) -> float:
        return self.ended - self.sent


@dataclass
class Traffic:
    """What the clients have seen so far."""

    predicts: list[Answer] = field(default_factory=list)
    feedback: list[Answer] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    """texts of corrections that were answered 202"""

    def failed(self) -> list[Answer]:
        return [answer for answer in self.predicts if answer.status != 200]

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for answer in self.predicts)

    def last_disturbance(self) -> float:
        """When the last predict ended that failed, or took longer than SLOW_S; 0 if none did."""
        return max((a.ended for a in self.predicts if a.status != 200 or a.wait_s > SLOW_S), default=0.0)


@contextmanager
def traffic(url: str) -> Iterator[Traffic]:
    """Clients of the server at `url`, until the block ends."""
    seen, stop = Traffic(), threading.Event()
    threads = [threading.Thread(target=client, args=(url, seen, stop), daemon=True) for client in (_predict, _correct)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# --- predicts --------------------------------------------------------------------------------------------------------


def _predict(url: str, seen: Traffic, stop: threading.Event) -> None:
    host, _, port = url.removeprefix("http://").partition(":")

    async def run() -> None:
        clients = [_Client(host, int(port), seen) for _ in range(CONNECTIONS)]
        while not stop.is_set():
            await asyncio.sleep(_WATCH_S)
            for client in clients:
                client.give_up()
        for client in clients:
            client.close()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run())


class _Client(asyncio.Protocol):
    """One connection, opened again when it closes. Understands answers with a content-length."""

    def __init__(self, host: str, port: int, seen: Traffic):
        self._host, self._port, self._seen = host, port, seen
        self._transport: Any = None
        self._sent, self._received, self._closed = 0.0, b"", False
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        while not self._closed:
            began = time.monotonic()
            try:
                await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)
                return
            except OSError:
                self._seen.predicts.append(Answer(began, time.monotonic(), BROKEN))
                await asyncio.sleep(_RECONNECT_S)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        text = " ".join(random.choices(_WORDS, k=random.randint(4, 20)))
        body = json.dumps({"text": text}).encode()
        head = f"POST {PREDICT} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        head += f"x-request-timeout-seconds: {DEADLINE_S:g}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._sent, self._received = time.monotonic(), b""
        self._transport.write(head.encode() + body)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        lower = head.lower()
        _, has_length, rest = lower.partition(b"\r\ncontent-length:")
        if not found or not has_length or len(body) < int(rest.partition(b"\r\n")[0]):
            return
        self._record(int(head[9:12]))
        if b"\r\nconnection: close" in lower:
            self._transport.close()
        elif not self._closed:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if self._sent and not self._closed:
            self._record(BROKEN)
        if not self._closed:
            self._opening = asyncio.get_running_loop().create_task(self._open())

    def _record(self, status: int) -> None:
        self._seen.predicts.append(Answer(self._sent, time.monotonic(), status))
        self._sent = 0.0

    def give_up(self) -> None:
        """Abort a request that has had no answer for much longer than its deadline."""
        if self._sent and time.monotonic() - self._sent > _SILENT_S:
            self._transport.abort()

    def close(self) -> None:
        self._closed = True
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()


# --- corrections -----------------------------------------------------------------------------------------------------


def _correct(url: str, seen: Traffic, stop: threading.Event) -> None:
    """Five corrections a second, each with a text of its own."""
    while not stop.wait(_FEEDBACK_S):
        text = "my parcel never came " + "".join(random.choices(string.ascii_lowercase, k=24))
        began = time.monotonic()
        status = post(url + FEEDBACK, {"text": text, "label": "track_order", "consent": True})
        seen.feedback.append(Answer(began, time.monotonic(), status))
        if status == 202:
            seen.accepted.add(text)


def post(address: str, body: dict[str, Any], headers: dict[str, str] | None = None, timeout_s: float = 30) -> int:
    """The status of one POST; BROKEN when there is no answer."""
    content = json.dumps(body).encode()
    request = urllib.request.Request(address, content, {"content-type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, HTTPException):
        return BROKEN
