"""Every response has a request id, the client's where that is safe; and a traced request has a span with its route."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from serve.api.request_ids import with_request_ids
from serve.request_context import current, note_version
from tests.helpers.spans import recorded_spans

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def echo(request: Request) -> Response:
    note_version("7")
    context = current.get()
    assert context is not None
    return PlainTextResponse(
        f"{context.request_id} {context.trace_id}", 503 if request.path_params["n"] == "503" else 200
    )


APP = Starlette(routes=[Route("/v2/{n}/predict", echo, methods=["POST"])])


def call(headers: Iterable[tuple[str, str]] = (), path: str = "/v2/1/predict", method: str = "POST") -> httpx.Response:
    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(with_request_ids(APP, APP.routes, "intent"))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.request(method, path, headers=list(headers))

    return asyncio.run(request())


def test_a_safe_id_is_kept_and_returned() -> None:
    response = call([("x-request-id", "desk-42")])
    assert response.headers.get_list("x-request-id") == ["desk-42"]
    assert response.text.split()[0] == "desk-42"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-request-id", "two words")],
        [("x-request-id", "x" * 129)],
        [("x-request-id", "a"), ("x-request-id", "b")],
    ],
)
def test_otherwise_there_is_a_new_one(headers: list[tuple[str, str]]) -> None:
    first, second = call(headers), call(headers)
    ids = [response.headers["x-request-id"] for response in (first, second)]
    assert all(re.fullmatch("[0-9a-f]{32}", id_) for id_ in ids)
    assert ids[0] != ids[1]
    assert first.text.split()[0] == ids[0]


@pytest.mark.parametrize(("path", "method", "status"), [("/nothing", "POST", 404), ("/v2/1/predict", "GET", 405)])
def test_errors_have_one_too(path: str, method: str, status: int) -> None:
    response = call([("x-request-id", "desk-42")], path, method)
    assert (response.status_code, response.headers["x-request-id"]) == (status, "desk-42")


def test_the_trace_id_is_known_though_nothing_is_traced() -> None:
    assert (call([("traceparent", f"00-{TRACE}-{SPAN}-01")])).text.split()[1] == TRACE
    twice = [("traceparent", f"00-{TRACE}-{SPAN}-01")] * 2
    assert (call(twice)).text.split()[1:] == []


def test_the_span_names_the_route_without_what_a_client_sent() -> None:
    with recorded_spans(sample=0.0) as spans:
        traceparent = ("traceparent", f"00-{TRACE}-{SPAN}-01")
        call([traceparent, ("x-request-id", "desk-42"), ("user-agent", "alice")], "/v2/secret/predict?key=secret")
        call([traceparent], "/secret/path")
        call([traceparent], "/v2/503/predict")
        call([traceparent], "/secret/path", "SECRET")
    good = spans[0]
    assert dict(good.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v2/{n}/predict",
        "http.response.status_code": 200,
        "flywheel.request_id": "desk-42",
        "flywheel.task": "intent",
        "flywheel.version": "7",
    }
    assert [span.name for span in spans] == ["POST /v2/{n}/predict", "POST", "POST /v2/{n}/predict", "_OTHER"]
    assert [span.status.is_ok for span in spans] == [True, True, False, True]
    assert not re.search("secret|alice", "".join(span.to_json() for span in spans), re.IGNORECASE)


def test_behind_serves_proxy_the_route_is_the_same() -> None:
    """Serve's proxy, which stands in where HAProxy knows no replica yet, sets root_path to the route's prefix."""

    async def hot(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("found by its path")(scope, receive, send)

    async def request() -> httpx.Response:
        transport = httpx.ASGITransport(with_request_ids(hot, APP.routes, "intent"), root_path="/v2/1")
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post("/v2/1/predict")

    with recorded_spans() as spans:
        assert asyncio.run(request()).status_code == 200
    [span] = spans
    assert span.name == "POST /v2/{n}/predict"


def test_an_application_that_raises_ends_its_span() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("secret")

    with recorded_spans() as spans:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        with pytest.raises(ValueError, match="secret"):
            asyncio.run(with_request_ids(broken, [])(scope, None, None))  # type: ignore[arg-type]
    assert [(span.attributes or {})["http.response.status_code"] for span in spans] == [500]
    assert current.get() is None
