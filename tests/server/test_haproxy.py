"""HAProxy: which replica it sends a request to, and when to none; and killed, it is back within seconds."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

import httpx
import pytest

from loadtests.arrivals import OpenLoop, OpenLoopResult, new_event_loop
from serve.api.headers import REFUSED
from tests.helpers.server import GOOD, Server, answer_of, ask_haproxy, children, replicas, sent_to_replicas
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.needs_tweak("haproxy", "haproxy_lines")


def answers(server: Server) -> bool:
    try:
        return server.post("/v2/models/intent/predict", json=GOOD).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def clients(server: Server, count: int) -> Iterator[list[HTTPConnection]]:
    with ExitStack() as stack:
        address = server.url.removeprefix("http://")
        yield [stack.enter_context(closing(HTTPConnection(address, timeout=30))) for _ in range(count)]


def ask(client: HTTPConnection, *texts: str) -> None:
    body = json.dumps({"texts": texts})
    client.request("POST", "/v2/models/intent/predict", body, {"content-type": "application/json"})


def at_once(clients: list[HTTPConnection]) -> list[int]:
    """The statuses of requests that take long, one a client."""
    for number, client in enumerate(clients):
        ask(client, *[f"parcel {number} of order {i} is late" for i in range(16)])
    answers = [client.getresponse() for client in clients]
    for answer in answers:
        answer.read()  # or the connection could not be used again
    return [answer.status for answer in answers]


@contextmanager
def more_open_files() -> Iterator[None]:
    """This process may have as many open files as the machine lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_request_alone_goes_where_the_last_one_went_and_many_at_once_to_all(own_server: Server) -> None:
    before = sent_to_replicas(own_server)
    for _ in range(20):
        answer_of(own_server)
    between = sent_to_replicas(own_server)
    assert sorted(now - then for now, then in zip(between, before, strict=True)) == [*[0] * (len(before) - 1), 20]
    with clients(own_server, 16) as many:
        assert at_once(many) == [200] * 16
    shares = [now - then for now, then in zip(sent_to_replicas(own_server), between, strict=True)]
    assert sum(shares) == 16
    assert min(shares) >= 4, shares


def test_requests_share_connections_to_the_replicas_however_many_clients_there_are(own_server: Server) -> None:
    (files,) = (int(number) for number in re.findall(r"^Maxsock: (\d+)", ask_haproxy(own_server, "show info"), re.M))
    address = ("127.0.0.1", int(own_server.url.rpartition(":")[2]))
    with ExitStack() as stack, more_open_files(), clients(own_server, 16) as many:
        for _ in range(int(0.3 * files)):  # HAProxy's own bound for keeping connections to servers is 0.2
            stack.enter_context(socket.create_connection(address, timeout=30))
        at_once(many)
        before = sum(sent_to_replicas(own_server, "connect"))
        for _ in range(5):
            assert at_once(many) == [200] * 16
        assert sum(sent_to_replicas(own_server, "connect")) - before < 16


@contextmanager
def unchecked_replicas(server: Server) -> Iterator[None]:
    """HAProxy does not check the replicas: after ten seconds it would send no request to one that is stopped."""
    rows = csv.DictReader(ask_haproxy(server, "show stat").removeprefix("# ").splitlines())
    names = [f"{row['pxname']}/{row['svname']}" for row in rows if "SERVE_REPLICA_intent" in row["svname"]]
    try:
        for name in names:
            assert ask_haproxy(server, f"disable health {name}") == "\n"
        yield
    finally:
        for name in names:
            ask_haproxy(server, f"enable health {name}")


def test_of_very_many_requests_each_replica_has_its_share_though_one_answers_sooner(own_server: Server) -> None:
    def sent() -> int:
        return sum(sent_to_replicas(own_server))

    with clients(own_server, 16) as some:
        at_once(some)  # HAProxy knows a replica by its number from its first answer on
    first, both = sent(), replicas(own_server)
    try:
        with unchecked_replicas(own_server), clients(own_server, 400) as many:
            for replica in both:  # so that very many are in progress, however slowly they are sent
                os.kill(replica, signal.SIGSTOP)
            for number, client in enumerate(many[:340]):
                ask(client, f"where is order {number}?")
            eventually(lambda: sent() == first + 340, 5)
            os.kill(both[1], signal.SIGCONT)
            eventually(lambda: min(sent_to_replicas(own_server, "scur")) == 0, 5)
            before = sent_to_replicas(own_server)
            for number, client in enumerate(many[340:]):
                ask(client, f"is order {number} late?")
            eventually(lambda: sent() == first + 400, 5)
            shares = [now - then for now, then in zip(sent_to_replicas(own_server), before, strict=True)]
            os.kill(both[0], signal.SIGCONT)
            assert {client.getresponse().status for client in many} <= {200, 503, 504}
    finally:
        for replica in both:
            os.kill(replica, signal.SIGCONT)
    assert min(shares) >= 10, shares


def refusals_counted(server: Server) -> float:
    """Answers 503 of the task so far, by its metrics; asks it first, for HAProxy tells with the next request."""
    for _ in range(8):
        answer_of(server)
    pattern = r'^flywheel_requests_total\{code="503",endpoint="predict",task="intent",.*\} (\S+)$'
    return sum(map(float, re.findall(pattern, server.get("/metrics").text, re.M)))


def requests_of_thirty_words(known: int = 0) -> Iterator[bytes]:
    """Each new, and of a word that no linear reader has seen, but for one of `known`, which is always the same."""
    head = b"POST /v2/models/intent/predict HTTP/1.1\r\nhost: flywheel\r\ncontent-type: application/json\r\n"
    for number in count():
        name = "known" if known and number % known == 0 else f"parcel {number}"
        body = json.dumps({"text": name + " volcano" * 30}).encode()
        yield head + f"content-length: {len(body)}\r\n\r\n".encode() + body


def overloaded(server: Server, requests: Iterator[bytes]) -> tuple[OpenLoopResult, int]:
    """How more requests than it can answer ended, and how many of them HAProxy sent to replicas."""
    before = sum(sent_to_replicas(server))
    with more_open_files(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        outcome = runner.run(OpenLoop(server.url, requests, 3000).run(rate=2000, seconds=4))
    return outcome, sum(sent_to_replicas(server)) - before


def test_of_an_overload_most_is_refused_before_it_reaches_a_replica_and_counted(own_server: Server) -> None:
    counted = refusals_counted(own_server)
    outcome, sent = overloaded(own_server, requests_of_thirty_words())
    accepted, shed = len(outcome.accepted), len(outcome.shed)  # shed: 503 in the shape of the contract
    assert (outcome.sent, outcome.lost, outcome.hung, outcome.other) == (accepted + shed, 0, 0, {})
    assert accepted <= sent < accepted + shed / 2
    own_server.get("/v2/models/intent")  # nothing is told with what the replica does not count
    eventually(lambda: refusals_counted(own_server) - counted == shed, 10)


def cache_hits(server: Server) -> float:
    pattern = r'^flywheel_cache_texts_total\{.*result="hit".*task="intent".*\} (\S+)$'
    return sum(map(float, re.findall(pattern, server.get("/metrics").text, re.M)))


def test_of_an_overload_the_texts_that_are_known_are_answered(own_server: Server) -> None:
    """HAProxy refuses for a replica only while its event loop is late, and the replica answers each that it knows."""
    hits = cache_hits(own_server)
    outcome, sent = overloaded(own_server, requests_of_thirty_words(known=4))
    assert len(outcome.shed) > 0
    assert cache_hits(own_server) - hits > 0.8 * sent / 4


def test_a_client_cannot_count_refusals(own_server: Server) -> None:
    counted = refusals_counted(own_server)
    answer = own_server.post("/v2/models/intent/predict", json=GOOD, headers={REFUSED: "1000 0"})
    assert answer.status_code == 200
    assert refusals_counted(own_server) == counted


def haproxys_configuration(server: Server) -> str:
    haproxy = max(children(server.process.pid, "haproxy -db"))
    started_with = Path(f"/proc/{haproxy}/cmdline").read_text().split("\0")
    return Path(started_with[started_with.index("-f") + 1]).read_text()


def test_serves_own_proxy_which_stands_in_where_there_is_no_replica_answers_too(own_server: Server) -> None:
    found = re.search(r"^backend \S*intent\n(?:\s.*\n)*?\s+server \S+ (\S+:\d+) check backup$",
                      haproxys_configuration(own_server), re.M)  # fmt: skip
    assert found
    answer = httpx.post(f"http://{found[1]}/v2/models/intent/predict", json=GOOD, timeout=30)
    assert (answer.status_code, answer.json()["model_name"]) == (200, "intent")


@pytest.mark.parametrize(("section", "path"), [("frontend prometheus", "/metrics"), ("listen stats", "/stats")])
def test_haproxys_own_pages_answer_this_machine_only(own_server: Server, section: str, path: str) -> None:
    found = re.search(rf"^{section}\n\s+bind \S*:(\d+)$", haproxys_configuration(own_server), re.M)
    assert found
    assert httpx.get(f"http://127.0.0.1:{found[1]}{path}", timeout=5).status_code == 200
    with pytest.raises(httpx.ConnectError):  # who listens on all addresses answers at this one too
        httpx.get(f"http://127.0.0.2:{found[1]}{path}", timeout=5)


@pytest.mark.parametrize("name", ["haproxy -db", "ray::HAProxyManager"])
def test_killed_haproxy_is_back_within_seconds(own_server: Server, name: str) -> None:
    (victim,) = children(own_server.process.pid, name)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: victim not in children(own_server.process.pid, name), 5)
    eventually(lambda: answers(own_server), 20)
    eventually(lambda: len(children(own_server.process.pid, "haproxy -db")) == 1, 20)
