"""HAProxy: which replica it sends a request to; killed, it is back within seconds; it ends with the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, start_server, stop_server
from tests.test_lifecycle import GOOD, answer_of, children, eventually, sent_to_replicas


@pytest.fixture(scope="module")
def own_server(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose processes these tests kill; the last test kills all of them."""
    running = start_server(trained_home, tmp_path_factory.mktemp("haproxy") / "server.log")
    time.sleep(3)  # Serve replaces HAProxy once more about when it is ready, and the counts begin anew
    yield running
    if running.process.poll() is None:
        stop_server(running)


def answers(server: Server) -> bool:
    try:
        return server.post("/v2/models/intent/predict", json=GOOD).status_code == 200
    except httpx.TransportError:
        return False


def test_a_request_alone_goes_where_the_last_one_went_and_many_at_once_to_all(own_server: Server) -> None:
    before = sent_to_replicas(own_server)
    for _ in range(20):
        answer_of(own_server)
    between = sent_to_replicas(own_server)
    assert sorted(now - then for now, then in zip(between, before, strict=True)) == [*[0] * (len(before) - 1), 20]
    with ExitStack() as stack:
        clients = [
            stack.enter_context(closing(HTTPConnection(own_server.url.removeprefix("http://"), timeout=30)))
            for _ in range(16)
        ]
        for number, client in enumerate(clients):
            slow = {"texts": [f"parcel {number} of order {i} is late" for i in range(16)]}
            client.request("POST", "/v2/models/intent/predict", json.dumps(slow), {"content-type": "application/json"})
        assert [client.getresponse().status for client in clients] == [200] * 16
    shares = [now - then for now, then in zip(sent_to_replicas(own_server), between, strict=True)]
    assert sum(shares) == 16
    assert min(shares) >= 4, shares


@pytest.mark.parametrize("name", ["haproxy -db", "ray::HAProxyManager"])
def test_killed_haproxy_is_back_within_seconds(own_server: Server, name: str) -> None:
    (victim,) = children(own_server.process.pid, name)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in children(own_server.process.pid, name), 5)
    eventually(lambda: answers(own_server), 20)
    eventually(lambda: len(children(own_server.process.pid, "haproxy -db")) == 1, 20)


def test_haproxy_does_not_outlive_a_server_that_is_killed(own_server: Server) -> None:
    """The raylet first: while it lives it ends what its workers have started."""
    pid = own_server.process.pid
    (haproxy,) = children(pid, "haproxy -db")
    others = [process for process in children(pid, "") if process != haproxy]
    for victim in [*children(pid, "raylet/raylet"), *others, pid]:
        os.kill(victim, signal.SIGKILL)
    own_server.process.wait(10)
    eventually(lambda: not Path(f"/proc/{haproxy}").exists(), 5)
    host, _, port = own_server.url.removeprefix("http://").rpartition(":")
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((host, int(port)))
