"""uvicorn's server and protocol, changed so that requests reach our application first and a response is one write.

uvicorn writes the head and the body of a response separately. HAProxy wakes up for each and forwards each in a write of
its own; and a replica that dies between the two leaves half a response, which HAProxy cannot retry.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, cast

import uvicorn
from starlette.middleware import Middleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.api.connection import EXTENSION
from serve.api.validation import to_json
from serve.engine.ids import new_id
from serve.errors import NotHttp
from serve.rayserve import reports
from serve.rayserve.bypass import with_bypass

_TICK_S = 0.5  # uvicorn's default is 0.1, in every replica
_ACCEPTED_PER_TURN = 8


class Server(uvicorn.Server):
    """uvicorn's server, which polls less often for its shutdown and accepts several connections at once.

    uvloop accepts one connection per listener and turn of the event loop, and a turn may contain a batch of the model.
    Admission cannot see requests that wait to be accepted, so the socket has several listeners.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets and [one.dup() for one in sockets for _ in range(_ACCEPTED_PER_TURN)])
        reports.record("http_server")

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(_TICK_S)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, which bypasses Serve, writes a response at once, and exposes the connection's state.

    The state is an ASGI extension (serve/api/connection.py): uvicorn's RequestResponseCycle knows whether the body has
    arrived and whether the client has disconnected; with plain ASGI a task would have to wait for that.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        serves = cast(Any, self.app)
        self.app = cast(Any, with_bypass(serves))
        self._bypasses_serve = self.app is not serves

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._buffered = _BufferedTransport(transport)
        super().connection_made(cast(asyncio.Transport, self._buffered))
        reports.record("whole_answers")

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # starts a task, which runs later
        # Serve's own proxy, used while there is no replica, has this protocol too and has to pickle its scopes.
        if self._bypasses_serve and self.cycle is not None and self.cycle.scope is self.scope:
            cast(Any, self.cycle).received_at = time.monotonic()
            cast(Any, self.scope)["extensions"] = {EXTENSION: self.cycle}
            reports.record("connection_extension")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # HAProxy resets idle connections, and uvicorn does not cancel the keep-alive timer of one that was reset. The
        # timer would keep the connection and all it refers to in memory for Ray Serve's keep-alive timeout of 90 s.
        self._unset_keepalive_if_required()

    def send_400_response(self, msg: str) -> None:
        """For what is not HTTP, an error in the server's own format; then the connection is closed."""
        error = NotHttp("this is not a valid HTTP request")
        body = to_json(error.body())
        head = (
            f"HTTP/1.1 {error.status} Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {new_id()}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def on_response_complete(self) -> None:
        self._buffered.flush()
        super().on_response_complete()


class _BufferedTransport:
    """A transport that buffers writes until `flush` or `close`."""

    def __init__(self, transport: asyncio.Transport):
        self._transport = transport
        self._held: list[bytes] = []
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        self._held.append(data)
        if data.startswith(b"HTTP/1.1 100 "):  # 100 Continue: the client waits for it before it sends its body
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
