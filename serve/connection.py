"""A connection from HAProxy to this process: uvicorn's, with our application first, and each answer in one write.

uvicorn writes the head of an answer and its body apart. HAProxy is woken for each, and passes each on to the client in
a write of its own; and a replica that dies between the two leaves half an answer, which nobody can ask for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import (
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serve.ingress import past

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application, ASGISendEvent, HTTPResponseBodyEvent, HTTPResponseStartEvent

Headers = Sequence[tuple[bytes, bytes]]

_FRAMING = {b"connection", b"transfer-encoding"}  # left to uvicorn
_default_headers: tuple[Headers, bytes] = ((), b"")  # the last ones, and their lines: they change once a second


class Connection(HttpToolsProtocol):
    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.app = cast(Any, past(cast(Any, self.app)))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.__class__ = _Cycle  # uvicorn has no setting for it
        super()._start_asgi_task(cycle, app)


class _Cycle(RequestResponseCycle):
    """A request and its answer, whose head is held until there is some of its body."""

    _head: HTTPResponseStartEvent | None = None

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start" and not self.response_started:
            self._head = message
            return
        head, self._head = self._head, None
        if head is not None:
            if self._wrote_whole(head, cast("HTTPResponseBodyEvent", message)):
                return
            await super().send(head)
        await super().send(message)

    def _wrote_whole(self, head: HTTPResponseStartEvent, message: HTTPResponseBodyEvent) -> bool:
        """Writes the answer if all of it is here and there is nothing unusual about it."""
        unusual = message.get("more_body") or self.disconnected or self.flow.write_paused
        if unusual or self.scope["method"] == "HEAD":
            return False
        headers: Headers = list(head.get("headers", ()))
        names, values = {name for name, _ in headers}, b"".join([value for _, value in headers])
        body = message.get("body", b"")
        length = (b"content-length", b"%d" % len(body))
        if length not in headers or names & _FRAMING or HEADER_VALUE_RE.search(values):
            return False
        content = [STATUS_LINE[head["status"]], _lines_of(self.default_headers), _lines(headers)]
        if not self.keep_alive:
            content.append(b"connection: close\r\n")
        self.transport.write(b"".join([*content, b"\r\n", body]))
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


def _lines_of(default_headers: Headers) -> bytes:
    global _default_headers
    if default_headers is not _default_headers[0]:
        _default_headers = default_headers, _lines(default_headers)
    return _default_headers[1]


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
