"""More than a server can do, and clients that do not wait: refused at once, dropped, and then all is well again."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.command import flywheel
from tests.helpers.contract import assert_error
from tests.helpers.server import Server, start_server, stop_server
from tests.helpers.tiny_readers import release_sure_version
from tests.helpers.waiting import eventually

PREDICT = "/v2/models/intent/predict"
GOOD = {"text": "where is my order 88231?"}
HEADER = "x-request-timeout-seconds"
DEADLINE_S = 8.0
REFUSED_BY_HAPROXY = "the model is busy; try again later"


@pytest.fixture(scope="module")
def impatient(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lets little wait, and takes requests too large for its deadline."""
    folder = tmp_path_factory.mktemp("overload")
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, folder / "home" / part)
    running = start_server(
        folder / "home",
        folder / "server.log",
        tasks=["intent"],
        FLYWHEEL_LIMITS__WAIT_S="0.05",
        FLYWHEEL_LIMITS__DEADLINE_S=str(DEADLINE_S),
        FLYWHEEL_LIMITS__TEXTS="4096",
        FLYWHEEL_LIMITS__BODY_BYTES=str(8 << 20),
    )
    yield running
    assert stop_server(running) == 0


@pytest.fixture(scope="module")
def sure(impatient: Server) -> list[str]:
    """Texts that the linear reader of the served version answers alone."""
    texts = release_sure_version(impatient.home)
    eventually(lambda: impatient.post(PREDICT, json=GOOD).json()["model_version"] == "99", 60)
    time.sleep(2)  # each replica looks once a second
    return texts


def distinct(count: int, words: int, name: str) -> dict[str, list[str]]:
    """Texts that no cache knows and no other request has, of a word that no linear reader has seen."""
    return {"texts": [f"{name} {number}" + " volcano" * words for number in range(count)]}


ENDLESS = distinct(4000, 200, "endless")  # many times more than a core can do within DEADLINE_S


def dropped(server: Server, reason: str) -> float:
    """Intent texts that never reached the model for this reason, since the server started."""
    pattern = rf'^flywheel_dropped_texts_total\{{reason="{reason}",task="intent"\}} (\S+)$'
    return sum(map(float, re.findall(pattern, server.get("/metrics").text, re.MULTILINE)))


def assert_works(server: Server) -> None:
    response = server.post(PREDICT, json=GOOD)
    assert response.status_code == 200, response.text


def test_a_burst_is_answered_or_refused_and_nothing_else(impatient: Server) -> None:
    assert_works(impatient)
    before = dropped(impatient, "overloaded")
    bodies = [distinct(8, 25, f"burst {number}") for number in range(300)]
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=impatient.url, timeout=60, limits=limits) as client, ThreadPoolExecutor(300) as pool:
        responses = list(pool.map(lambda body: client.post(PREDICT, json=body), bodies))
    refused = [response for response in responses if response.status_code == 503]
    assert {response.status_code for response in responses} == {200, 503}
    for response in refused:
        assert assert_error(response, 503)["code"] == "overloaded"
        assert int(response.headers["retry-after"]) >= 1
    # HAProxy knows nothing of a request's texts, and tells of what it refused with the requests that follow.
    texts = sum(1 if response.json()["error"] == REFUSED_BY_HAPROXY else 8 for response in refused)
    for _ in range(8):
        assert_works(impatient)
    assert dropped(impatient, "overloaded") - before == texts


def test_explanations_are_refused_before_predictions_wait_for_them(impatient: Server) -> None:
    """A hundred requests at once, each of 120 readings: more than is admitted."""
    bodies = [{**distinct(4, 28, f"explained {number}"), "explain": True} for number in range(100)]
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(base_url=impatient.url, timeout=60, limits=limits) as client, ThreadPoolExecutor(100) as pool:
        explained = [pool.submit(client.post, PREDICT, json=body) for body in bodies]
        time.sleep(0.2)
        plain = [client.post(PREDICT, json=distinct(1, 3, f"beside {number}")) for number in range(20)]
        responses = [future.result() for future in explained]
    assert {response.status_code for response in responses} == {200, 503}
    assert {response.status_code for response in plain} <= {200, 503}
    assert max(response.elapsed.total_seconds() for response in plain) < 2  # all readings would take many times as long
    assert_works(impatient)


@pytest.mark.parametrize("body", [distinct(1, 20, "late"), ENDLESS], ids=["one text", "4000 texts"])
def test_a_deadline_that_cannot_be_kept(impatient: Server, stock: bool, body: dict[str, Any]) -> None:
    seconds = "0.000001" if len(body["texts"]) == 1 else "0.5"
    response = impatient.post(PREDICT, json=body, headers={HEADER: seconds})
    if stock:  # Ray Serve's proxy reads the header itself
        assert response.status_code == 408, response.text
    else:
        assert assert_error(response, 504)["code"] == "deadline_exceeded"
    assert_works(impatient)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "-inf", "soon", "1,5", ""])
def test_a_deadline_that_is_no_positive_number(impatient: Server, value: str) -> None:
    error = assert_error(impatient.post(PREDICT, json=GOOD, headers={HEADER: value}), 422)
    assert error["fields"][0]["field"] == HEADER
    assert_works(impatient)


@pytest.mark.parametrize("value", ["3600", "1e400", "inf"])
def test_a_deadline_beyond_the_servers_changes_nothing(impatient: Server, value: str) -> None:
    assert impatient.post(PREDICT, json=GOOD, headers={HEADER: value}).status_code == 200


def test_a_deadline_beyond_the_servers_is_bounded_by_it(impatient: Server) -> None:
    response = impatient.post(PREDICT, json=ENDLESS, headers={HEADER: "3600"})
    assert assert_error(response, 504)["code"] == "deadline_exceeded"
    assert_works(impatient)


def test_a_body_that_never_comes_is_not_waited_for_longer_than_the_deadline(impatient: Server, stock: bool) -> None:
    with closing(HTTPConnection(impatient.url.removeprefix("http://"), timeout=30)) as connection:
        connection.putrequest("POST", PREDICT)
        connection.putheader("content-length", "100")
        connection.endheaders(b'{"text": "where')
        answer = connection.getresponse()
        assert answer.status == (504 if stock else 408)  # the replica's, or HAProxy's
        assert json.loads(answer.read())["code"] == "deadline_exceeded"
    assert_works(impatient)


def test_texts_of_a_client_that_left_are_dropped(impatient: Server) -> None:
    before = dropped(impatient, "cancelled")
    body = distinct(400, 200, "left")  # few enough to be tokenized at once, seconds of work for the model
    request = httpx.Request("POST", impatient.url + PREDICT, json=body)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    address = (request.url.host, request.url.port)
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\n{head}\r\n".encode() + request.content)
        time.sleep(0.7)  # long enough to be queued, too short for half of it to be answered
    eventually(lambda: dropped(impatient, "cancelled") - before > len(body["texts"]) / 2, 30)
    assert_works(impatient)


def test_early_answers_do_not_wait_for_the_encoder(impatient: Server, sure: list[str]) -> None:
    details = impatient.post(PREDICT, json={"texts": [sure[0], "quite another thing"], "details": True}).json()
    assert [prediction["stages"] for prediction in details["predictions"]] == [["linear"], ["linear", "encoder"]]
    numbers = itertools.count()
    with ThreadPoolExecutor(8) as pool, httpx.Client(base_url=impatient.url, timeout=60) as client:

        def ask(*texts: str) -> httpx.Response:
            return client.post(PREDICT, json={"texts": texts})

        def refused() -> bool:
            return all(ask(f"unsure {next(numbers)}").status_code == 503 for _ in range(10))

        def refusal(*beside: str) -> httpx.Response:
            """Of a new unsure text and others; one of two replicas may be free for a moment, and answer."""
            responses = (ask(*beside, f"unsure {next(numbers)}") for _ in range(20))
            return next(response for response in responses if response.status_code == 503)

        work = [
            pool.submit(impatient.post, PREDICT, json=distinct(500, 200, f"busy {n}"), headers={HEADER: "5"})
            for n in range(8)
        ]
        eventually(refused, 20)
        assert "1 of the 32 texts" in assert_error(refusal(*(sure * 2)[:31]), 503)["error"]
        seconds = []
        for text in sure * 2:
            started = time.perf_counter()
            assert ask(text).status_code == 200
            seconds.append(time.perf_counter() - started)
        response = refusal()
        assert assert_error(response, 503)["code"] == "overloaded"
        assert int(response.headers["retry-after"]) >= 1
        assert len(ask(*(sure * 2)[:32]).json()["predictions"]) == 32
        assert refusal().status_code == 503  # the encoder was busy to the end
        assert sorted(seconds)[len(seconds) // 2] < 0.1, seconds
        print(f"early answers of a full server: {1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f} ms")
        wait(work)
    # Texts past their deadline leave the queue after the batch that runs.
    eventually(lambda: impatient.post(PREDICT, json=GOOD).status_code == 200, 5)
    shown = flywheel("status", "--url", impatient.url).stdout
    assert re.search(r"intent: ready, version 99 \(.*, \d+% of its texts answered early\)", shown), shown
