"""Request ids and traces over HTTP: each response has its id, and a collector gets the spans of a traced request."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.helpers.server import Server, start_server, stop_server
from tests.helpers.spans import Collector, ReceivedSpan, collector
from tests.helpers.waiting import eventually

MODEL, OPERATIONS = "/v2/models/intent", "/v2/repository/models/intent"
LOST, BACK = "traces are lost: the collector does not take them", "the collector takes traces again"


class Traced(NamedTuple):
    server: Server
    collector: Collector
    log: Path


@pytest.fixture(scope="module")
def traced(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """The intent task in one replica that reads every text with its encoder; no request is traced unless it asks."""
    folder = tmp_path_factory.mktemp("tracing")
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, folder / "home" / part)
    with collector() as receiver:
        server = start_server(
            folder / "home", folder / "log", tasks=["intent"],
            FLYWHEEL_TASKS__INTENT__REPLICAS="1", FLYWHEEL_TASKS__INTENT__EARLY_ANSWERS="off",
            FLYWHEEL_LEARNING__AUTOMATIC="false", FLYWHEEL_LOGGING__FORMAT="json",
            FLYWHEEL_TRACING__ENDPOINT=receiver.url, FLYWHEEL_TRACING__SAMPLE="0", OTEL_BSP_SCHEDULE_DELAY="200",
        )  # fmt: skip
        yield Traced(server, receiver, folder / "log")
        assert stop_server(server) == 0


def new_trace(flags: str = "01") -> tuple[str, str, dict[str, str]]:
    """A trace id, the id of the client's span, and the header that names both."""
    trace, span = os.urandom(16).hex(), os.urandom(8).hex()
    return trace, span, {"traceparent": f"00-{trace}-{span}-{flags}"}


def spans_of(receiver: Collector, trace: str, *names: str) -> dict[str, ReceivedSpan]:
    """The spans of a trace by name, once those are there."""
    eventually(lambda: set(names) <= set(receiver.trace(trace)), 20)
    return receiver.trace(trace)


def test_a_predict_is_traced_through_queue_session_and_store(traced: Traced) -> None:
    trace, client, header = new_trace()
    text = "where is the parcel that I ordered on trace street"
    response = traced.server.post(
        f"{MODEL}/predict", json={"text": text}, headers={**header, "x-request-id": "desk-42"}
    )
    assert response.status_code == 200
    found = spans_of(
        traced.collector, trace, f"POST {MODEL}/predict", "tokenize", "queue", "session", "store predictions"
    )
    request = found.pop(f"POST {MODEL}/predict")
    assert request.parent == client
    assert request.attributes["flywheel.request_id"] == "desk-42"
    assert request.attributes["flywheel.version"] == response.json()["model_version"]
    assert (request.attributes["http.route"], request.attributes["http.response.status_code"]) == (
        f"{MODEL}/predict",
        200,
    )
    assert request.resource["service.name"] == "flywheel"
    assert set(found) == {"tokenize", "queue", "session", "store predictions"}
    assert {span.parent for span in found.values()} == {request.id}
    assert found["session"].attributes["flywheel.batch.texts"] == 1
    order = [request.start, *(found[name].start for name in ("tokenize", "queue", "session"))]
    assert order == sorted(order)
    assert found["queue"].end <= found["session"].start + 1_000_000
    assert found["session"].end <= request.end + 1_000_000
    assert text not in b"".join(traced.collector.bodies).decode("latin-1")


def test_feedback_is_traced_to_its_store(traced: Traced) -> None:
    answer = traced.server.post(f"{MODEL}/predict", json={"text": "I want my money back for order 5512"}).json()
    trace, _, header = new_trace()
    correction = {"id": answer["id"], "label": answer["predictions"][0]["label"], "user": "alice@example.com"}
    response = traced.server.post(f"{MODEL}/feedback", json=correction, headers=header)
    assert response.status_code == 202
    found = spans_of(traced.collector, trace, f"POST {MODEL}/feedback", "store feedback")
    assert found["store feedback"].parent == found[f"POST {MODEL}/feedback"].id
    assert found["store feedback"].attributes == {"flywheel.rows": 1}
    assert "alice" not in b"".join(traced.collector.bodies).decode("latin-1")


def test_operators_requests_are_traced_and_so_is_each_retraining(traced: Traced) -> None:
    trace, _, header = new_trace()
    assert traced.server.post(f"{OPERATIONS}/retrain", json={}, headers=header).status_code == 202
    found = spans_of(traced.collector, trace, "POST /v2/repository/models/{task}/retrain", "store")
    assert found["store"].parent == found["POST /v2/repository/models/{task}/retrain"].id
    eventually(lambda: any(span.name == "retraining intent" for span in traced.collector.spans()), 60)
    spans = traced.collector.spans()
    (run,) = [span for span in spans if span.name == "retraining intent"]
    assert run.attributes["flywheel.outcome"] in ("too_few", "failed")  # there is nothing to learn, or no checkpoint
    assert run.resource["service.instance.id"].startswith("retraining-")
    assert [span.parent for span in spans if span.name == "retraining curating"] == [run.id]


@pytest.mark.parametrize("header", ["not sampled", "", "x" * 5000, "00-0-0-01", "ff" + "-0" * 50, '{"a": 1}'])
def test_who_does_not_ask_is_not_traced(traced: Traced, header: str) -> None:
    trace, _, sampled = new_trace("00")
    headers = sampled if header == "not sampled" else {"traceparent": header}
    response = traced.server.post(f"{MODEL}/predict", json={"text": f"not traced {trace}"}, headers=headers)
    assert response.status_code == 200
    other, _, asks = new_trace()
    traced.server.post(f"{MODEL}/predict", json={"text": f"traced {other}"}, headers=asks)
    spans_of(traced.collector, other, "session", "store predictions")  # sent after those of the first, if it had any
    spans = traced.collector.spans()
    assert trace not in {span.trace for span in spans}
    assert {span.name for span in spans if not span.parent} <= {"retraining intent"}


def test_a_collector_that_is_away_harms_nobody_and_is_logged_once(traced: Traced) -> None:
    server, receiver = traced.server, traced.collector

    def said(sentence: str) -> int:
        records = [json.loads(line) for line in traced.log.read_text().splitlines() if line.startswith("{")]
        return sum(r["message"] == sentence and r["process"] == "intent" for r in records)

    receiver.fails = True
    for number in range(100):
        _, _, header = new_trace()
        response = server.post(f"{MODEL}/predict", json={"text": f"parcel {number}"}, headers=header)
        assert response.status_code == 200
    eventually(lambda: said(LOST) == 1, 30)
    receiver.fails = False
    trace, _, header = new_trace()
    server.post(f"{MODEL}/predict", json={"text": "once more"}, headers=header)
    spans_of(receiver, trace, "session")
    eventually(lambda: said(BACK) == 1, 30)
    assert said(LOST) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", f"{MODEL}/predict", 415), ("POST", f"{MODEL}/nothing", 404), ("DELETE", f"{MODEL}/predict", 405),
        ("GET", "/v2", 200), ("GET", "/metrics", 200), ("GET", "/v2/health/live", 200), ("GET", "/nothing", 404),
        ("POST", f"{OPERATIONS}/promote", 409), ("GET", "/v2/models/unheard/ready", 404),
        ("GET", f"{MODEL}/ready", 200),
    ],
)  # fmt: skip
def test_every_response_has_the_id_of_its_request(
    traced: Traced, stock: bool, method: str, path: str, status: int
) -> None:
    def ids(*headers: tuple[str, str]) -> tuple[int, list[str]]:
        kind = ("content-type", "text/csv" if status == 415 else "application/json")
        content = b"{}" if method == "POST" else None
        response = httpx.request(
            method, traced.server.url + path, headers=[kind, *headers], content=content, timeout=30
        )
        return response.status_code, response.headers.get_list("x-request-id")

    assert ids(("x-request-id", "desk-42")) == (status, ["desk-42"])
    unsafe = [[("x-request-id", "two words")], [("x-request-id", "a"), ("x-request-id", "b")]]
    for headers in ([], *(unsafe if not stock else [])):  # Ray Serve returns any id
        _, (made,) = ids(*headers)
        assert re.fullmatch("[0-9a-f-]{32,36}", made)


@pytest.mark.needs_tweak("haproxy", "haproxy_lines")
def test_what_haproxy_answers_itself_has_it_too(traced: Traced) -> None:
    """A method without a path; tests/unit/serve/rayserve/test_haproxy.py has its other refusals."""
    host, port = traced.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(f"OPTIONS * HTTP/1.1\r\nhost: {host}\r\nx-request-id: desk-42\r\n\r\n".encode())
        head = client.recv(65536).decode().lower().partition("\r\n\r\n")[0]
    assert head.startswith("http/1.1 405"), head
    assert head.count("x-request-id: desk-42") == 1, head
