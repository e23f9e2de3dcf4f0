"""frozen.lua in a real HAProxy: requests that a silent replica has are answered by another one."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from serve.rayserve.environment import has_haproxy
from serve.rayserve.haproxy import WRAPPER, binary
from tests.helpers.command import free_port
from tests.helpers.good_replica import GoodReplica
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.skipif(not has_haproxy(), reason="Ray brings no HAProxy for this system")

# As Ray's template and our lines have it, with checks that are more frequent.
CONFIGURATION = """global
    {lua}
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 12s
    option abortonclose
    option redispatch 1
    retry-on conn-failure empty-response
    retries 2
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend task
backend task
    balance roundrobin
    option httpchk GET /
    default-server fastinter 250ms downinter 250ms fall 2 rise 2 inter 1s check
    server silent 127.0.0.1:{silent} check
    server good 127.0.0.1:{good} check
"""


@contextmanager
def haproxy(folder: Path, lua: str) -> Iterator[str]:
    """URL of HAProxy before a replica that accepts connections and says nothing, and a good one."""
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        good = ThreadingHTTPServer(("127.0.0.1", 0), GoodReplica)
        stack.callback(good.server_close)
        stack.callback(good.shutdown)
        threading.Thread(target=good.serve_forever, daemon=True).start()
        port = free_port()
        file = folder / "haproxy.cfg"
        ports = {"port": port, "silent": silent.getsockname()[1], "good": good.server_address[1]}
        file.write_text(CONFIGURATION.format(lua=lua, **ports))
        process = subprocess.Popen([binary(), "-db", "-f", file], stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        with socket.socket() as probe:
            eventually(lambda: probe.connect_ex(("127.0.0.1", port)) == 0, 5)
        yield f"http://127.0.0.1:{port}"


def ask(url: str) -> int:
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().status


def answers(url: str) -> tuple[list[int], float]:
    """Statuses of four requests at once, sent before a check has failed; and how long the last of them took."""
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda _: ask(url), range(4)))
    return statuses, time.monotonic() - began


def test_requests_of_a_silent_replica_are_answered_by_another(tmp_path: Path) -> None:
    with haproxy(tmp_path, f"lua-load {Path(WRAPPER).with_name('frozen.lua')}") as url:
        statuses, seconds = answers(url)
    assert statuses == [200] * 4
    assert 0.3 < seconds < 8, "none of them met the silent replica"


@pytest.mark.slow
def test_without_it_they_wait_until_the_time_is_out(tmp_path: Path) -> None:
    with haproxy(tmp_path, "") as url:
        statuses, seconds = answers(url)
    assert sorted(statuses) == [200, 200, 504, 504]
    assert seconds > 11
