"""Connections from HAProxy to this process: uvicorn's, with our application first, and each answer in one write.

uvicorn writes the head of an answer and its body apart. HAProxy is woken for each, and passes each on to the client in
a write of its own; and a replica that dies between the two leaves half an answer, which nobody can ask for again.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import uvicorn
from starlette.middleware import Middleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.api.connection import EXTENSION
from serve.rayserve import reports
from serve.rayserve.bypass import past

_TICK_S = 0.5  # uvicorn's own is 0.1, in each of a server's HTTP servers
_ACCEPTED_A_TURN = 8


class Server(uvicorn.Server):
    """uvicorn's, which looks less often whether it should end, and accepts many connections at once.

    uvloop accepts one connection a listener and turn of the event loop; a turn may hold a batch of the model. While a
    burst of requests waits to be accepted, admission does not see it. So there are several listeners to one socket.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets and [one.dup() for one in sockets for _ in range(_ACCEPTED_A_TURN)])
        reports.took("http_server")

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(_TICK_S)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, which writes an answer at once, asks our application first, and tells it of the client.

    The last by an ASGI extension (serve/api/connection.py): uvicorn's RequestResponseCycle knows whether the body is
    there and whether the client has left, and ASGI has a task wait for the news instead.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        serves = cast(Any, self.app)
        self.app = cast(Any, past(serves))
        self._is_past = self.app is not serves

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = _Gathering(transport)
        super().connection_made(cast(asyncio.Transport, self._gathering))
        reports.took("whole_answers")

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # starts a task, which runs later
        # Serve's own proxy, which stands in while there is no replica, has this protocol too, and pickles its scopes.
        if self._is_past and self.cycle is not None and self.cycle.scope is self.scope:
            cast(Any, self.scope)["extensions"] = {EXTENSION: self.cycle}
            reports.took("connection_extension")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # uvicorn leaves the timer of an idle connection that was reset, which is how HAProxy ends them; the timer would
        # keep the connection and all it refers to for as long as idle ones are kept: 90 s, in Ray Serve.
        self._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        self._gathering.flush()
        super().on_response_complete()


class _Gathering:
    """A transport that holds what is written to it until `flush` or `close`."""

    def __init__(self, transport: asyncio.Transport):
        self._transport = transport
        self._held: list[bytes] = []
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        self._held.append(data)
        if data.startswith(b"HTTP/1.1 100 "):  # the client waits for it before it sends its body
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._transport.write(b"".join(self._held))
            self._held.clear()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def middlewares() -> list[Middleware]:
    import uvicorn
    from uvicorn.config import HTTP_PROTOCOLS

    HTTP_PROTOCOLS["auto"] = "serve.rayserve.http_server:Connection"
    uvicorn.Server = Server  # type: ignore[misc]
    return []
