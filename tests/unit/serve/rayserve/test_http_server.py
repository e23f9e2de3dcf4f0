"""A replica's side of a connection: uvicorn with our protocol, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from typing import ClassVar

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from serve.rayserve.http_server import Connection, Server

LARGE = "x" * 3_000_000


class Watched(Connection):
    alive: ClassVar[weakref.WeakSet[Connection]] = weakref.WeakSet()
    busy = threading.Event()  # the event loop
    turn = 0  # of it, since then
    made_in: ClassVar[list[int]] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.alive.add(self)
        self.made_in.append(Watched.turn)
        super().connection_made(transport)


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def stream(request: Request) -> Response:
    return StreamingResponse(iter(["first,", "second"]))


async def large(request: Request) -> Response:
    return PlainTextResponse(LARGE)


async def broken(request: Request) -> Response:
    raise RuntimeError("unforeseen")


async def busy(request: Request) -> Response:
    Watched.busy.set()
    time.sleep(0.5)  # noqa: ASYNC251  as a batch would
    for Watched.turn in range(1, 50):
        await asyncio.sleep(0)
    return PlainTextResponse("done")


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    routes = [
        Route("/echo", echo, methods=["POST", "HEAD"]),
        Route("/stream", stream),
        Route("/large", large),
        Route("/broken", broken),
        Route("/busy", busy),
    ]
    server = Server(uvicorn.Config(Starlette(routes=routes), http=Watched, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=10) as connection:
        yield connection


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST /echo HTTP/1.1", "host: test", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        part = client.recv(1 << 20)
        assert part, f"the connection ended after {received[-200:]!r}"
        received += part
    return received


def test_an_answer_comes_in_one_piece_and_the_next_over_the_same_connection(client: socket.socket) -> None:
    for number in range(20):
        body = b"%d." % number
        client.sendall(post(body) + body)
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n" + body)


def test_requests_sent_at_once_are_answered_in_order(client: socket.socket) -> None:
    client.sendall(b"".join(post(b"%d." % number) + b"%d." % number for number in range(5)))
    answers = until(client, b"4.")
    assert [part[:2] for part in answers.split(b"\r\n\r\n")[1:]] == [b"0.", b"1.", b"2.", b"3.", b"4."]


def test_a_client_that_asks_first_whether_to_send_is_told_at_once(client: socket.socket) -> None:
    client.sendall(post(b"later", "expect: 100-continue"))
    assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"later")
    assert client.recv(65536).endswith(b"\r\n\r\nlater")


def test_a_stream_and_a_large_answer_are_whole(client: socket.socket) -> None:
    client.sendall(b"GET /stream HTTP/1.1\r\nhost: test\r\n\r\n")
    assert b"first," in until(client, b"0\r\n\r\n")
    client.sendall(b"GET /large HTTP/1.1\r\nhost: test\r\n\r\n")
    received = until(client, b"x")
    while len(received.partition(b"\r\n\r\n")[2]) < len(LARGE):
        received += until(client, b"x")
    assert received.partition(b"\r\n\r\n")[2] == LARGE.encode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /broken HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n", b"500 Internal Server Error"),
        (b"HEAD /echo HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n", b"200 OK"),
        (b"no HTTP at all\r\n\r\n", b"400 Bad Request"),
    ],
)
def test_a_connection_that_is_to_close_sends_its_answer_first(
    client: socket.socket, request_: bytes, status: bytes
) -> None:
    client.sendall(request_)
    received = b""
    while part := client.recv(65536):
        received += part
    assert received.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"\r\n\r\n" in received


def test_what_is_not_http_is_an_error_of_the_contract(client: socket.socket) -> None:
    client.sendall(b"GET /echo HTTP/1.1\r\nhost: test\r\nx-user-id: a\0b\r\n\r\n")
    received = b""
    while part := client.recv(65536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert json.loads(body) == {"error": "this is not a valid HTTP request", "code": "bad_request"}


def test_a_connection_that_is_reset_is_forgotten(client: socket.socket) -> None:
    client.sendall(post(b"one") + b"one")
    until(client, b"one")
    assert Watched.alive
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as HAProxy closes what is idle
    client.close()
    patient = time.monotonic() + 2  # uvicorn's own timer for idle connections is 5 s here, 90 s in Ray Serve
    while Watched.alive and time.monotonic() < patient:
        time.sleep(0.05)
        gc.collect()
    assert not Watched.alive


def test_a_burst_of_connections_is_accepted_in_few_turns_of_the_loop(
    address: tuple[str, int], client: socket.socket
) -> None:
    client.sendall(b"GET /busy HTTP/1.1\r\nhost: test\r\n\r\n")
    assert Watched.busy.wait(10)
    burst = [socket.create_connection(address, timeout=10) for _ in range(16)]
    until(client, b"done")
    for one in burst:
        one.close()
    in_turns = [turn for turn in Watched.made_in if turn]
    assert len(in_turns) == 16
    assert len(set(in_turns)) <= 4, in_turns
