"""A replica that was full a moment ago gets only so many requests to hold, by the lines that a real HAProxy reads."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from serve.rayserve.environment import has_haproxy
from serve.rayserve.haproxy import binary
from tests.helpers.command import ROOT, free_port

pytestmark = pytest.mark.skipif(not has_haproxy(), reason="Ray brings no HAProxy for this system")

REQUEST = b"POST /v2/models/intent/predict HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
FULL = b"HTTP/1.1 503 Full\r\nx-flywheel-full-ms: 1\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n"
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
CLIENTS, HELD = 200, 128
CONFIGURATION = """global
    maxconn 1000
defaults
    mode http
    option http-buffer-request
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend http_frontend
    bind 127.0.0.1:{port}
    use_backend task
backend task
{lines}    server replica 127.0.0.1:{replica}
"""


class Replica:
    """Says once that it is full, for a millisecond, if it is to; then holds all requests until `answers` is set."""

    def __init__(self, *, was_full: bool):
        self._is_full, self.answers = was_full, asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1 << 16):
                if self._is_full:
                    self._is_full = False
                    writer.write(FULL)
                else:
                    await self.answers.wait()
                    writer.write(GOOD)
        finally:
            writer.close()


async def ask(port: int) -> bytes:
    """The status line and headers of the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


async def responses(port: int, replica: int, *, was_full: bool) -> Counter[int]:
    """Status codes of CLIENTS requests at once, which the replica answers once HAProxy has refused or not."""
    stand_in = Replica(was_full=was_full)
    async with await asyncio.start_server(stand_in.serve, "127.0.0.1", replica, backlog=CLIENTS):
        if was_full:
            assert b" 503 " in await ask(port)
        asking = [asyncio.create_task(ask(port)) for _ in range(CLIENTS)]
        await asyncio.sleep(0.5)
        refused = [task.result() for task in asking if task.done()]
        assert all(b"retry-after: 3" in head for head in refused)
        stand_in.answers.set()
        return Counter(int(head.split()[1]) for head in await asyncio.gather(*asking))


@pytest.mark.parametrize("was_full", [True, False])
def test_many_requests_are_refused_only_where_the_replica_was_full(tmp_path: Path, was_full: bool) -> None:
    port, replica = free_port(), free_port()
    lines = (ROOT / "serve" / "rayserve" / "backend.cfg").read_text()
    (tmp_path / "haproxy.cfg").write_text(CONFIGURATION.format(port=port, replica=replica, lines=lines))
    command = [binary(), "-db", "-f", tmp_path / "haproxy.cfg"]
    with ExitStack() as stack:
        process = subprocess.Popen(command, env={**os.environ, "HAPROXY_DEADLINE_S": "10"})
        stack.callback(process.wait)
        stack.callback(process.kill)
        asyncio.run(until_it_listens(port))
        found = asyncio.run(responses(port, replica, was_full=was_full))
    if was_full:
        assert found[200] < HELD + 5
        assert found[503] > CLIENTS - HELD - 5
    else:
        assert found == {200: CLIENTS}


async def until_it_listens(port: int) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
