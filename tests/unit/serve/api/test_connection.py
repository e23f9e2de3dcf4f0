"""Whether a client is still there: told by our HTTP server, and found out under one that knows nothing of it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import uvicorn
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.api.connection import connection_of, received_at, watch_disconnect
from serve.api.request import read_body
from serve.errors import RequestError
from serve.rayserve import bypass
from serve.rayserve.http_server import Connection

HEAD = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\n"


class Watching:
    """An application that reads a request and then looks, for as long as `work_s`, whether its client has left."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.knows: bool | None = None
        self.work_s = 0.0
        self.blocks_s = 0.0
        self.lags: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.lags.append(time.monotonic() - received_at(request))
        time.sleep(self.blocks_s)  # noqa: ASYNC251  the event loop is busy
        self.knows = connection_of(request) is not None
        try:
            self.noted.append((await read_body(request, 100, time.monotonic() + 1)).decode())
        except RequestError as error:
            self.noted.append(type(error).__name__)
            return
        with watch_disconnect(request) as disconnected:
            until = time.monotonic() + self.work_s
            while time.monotonic() < until and not disconnected():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            self.noted.append("left" if disconnected() else "stayed")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(params=[Connection, HttpToolsProtocol])
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Watching, socket.socket]]:
    """The application, and a client connected to it."""
    application = Watching()
    monkeypatch.setattr(bypass, "_application", application)
    server = uvicorn.Server(uvicorn.Config(application, http=request.param, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), timeout=10) as client:
                yield application, client
        finally:
            server.should_exit = True
            thread.join(10)
    assert application.knows is (request.param is Connection)


def noted(application: Watching, count: int) -> list[str]:
    patient = time.monotonic() + 5
    while len(application.noted) < count:
        assert time.monotonic() < patient, application.noted
        time.sleep(0.01)
    return application.noted


def test_a_client_that_waits_has_not_left_and_may_ask_again(served: tuple[Watching, socket.socket]) -> None:
    application, client = served
    application.work_s = 0.1
    for number in (1, 2):
        client.sendall(HEAD + b"text")
        assert client.recv(65536).endswith(b"ok")
        assert noted(application, 2 * number) == ["text", "stayed"] * number


def test_a_client_that_hangs_up_has_left(served: tuple[Watching, socket.socket]) -> None:
    application, client = served
    application.work_s = 5
    client.sendall(HEAD + b"text")
    noted(application, 1)
    client.close()
    assert noted(application, 2) == ["text", "left"]


def test_a_client_that_hangs_up_before_its_body_has_left(served: tuple[Watching, socket.socket]) -> None:
    application, client = served
    client.sendall(HEAD + b"te")
    time.sleep(0.1)
    client.close()
    assert noted(application, 1) == ["ClientLeft"]


def test_a_body_that_does_not_come_is_not_waited_for(served: tuple[Watching, socket.socket]) -> None:
    application, client = served
    client.sendall(HEAD + b"te")
    assert noted(application, 1) == ["DeadlineExceeded"]


def test_the_wait_for_a_busy_event_loop_is_known(served: tuple[Watching, socket.socket]) -> None:
    """The loop reads the requests that came while it was busy, and then answers them one after the other."""
    application, client = served
    with ExitStack() as stack:
        others = [stack.enter_context(socket.create_connection(client.getpeername(), timeout=10)) for _ in range(3)]
        for blocks_s in (0.0, 0.2):  # first each is accepted
            application.blocks_s = blocks_s
            for one in (client, *others):
                one.sendall(HEAD + b"text")
            for one in (client, *others):
                assert one.recv(65536).endswith(b"ok")
    if application.knows:
        assert 0.1 < max(application.lags) < 5
    else:
        assert max(application.lags) < 0.1
