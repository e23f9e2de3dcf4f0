"""HAProxy: which replica it sends a request to; and killed, it is back within seconds."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import httpx
import pytest

from tests.conftest import Server
from tests.test_lifecycle import GOOD, answer_of, children, eventually, sent_to_replicas


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
