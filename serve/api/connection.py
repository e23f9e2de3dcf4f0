"""Detection of client disconnects, by an ASGI extension or, without it, by a task.

Our HTTP server puts the connection into `scope["extensions"]` (rayserve/http_server.py). Under any other server, such
as Ray Serve's, a task awaits the `http.disconnect` message, as in plain ASGI: correct, but slower.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

from starlette.requests import Request

EXTENSION = "flywheel.connection"


class Flow(Protocol):
    def resume_reading(self) -> None: ...


class Connection(Protocol):
    """The extension's value: uvicorn's RequestResponseCycle, to which our HTTP server adds `received_at`."""

    received_at: float
    """when the event loop read the request's headers, in time.monotonic"""

    more_body: bool
    """whether a part of the body has not arrived yet"""
    disconnected: bool
    """whether the client has closed the connection"""
    flow: Flow


def connection_of(request: Request) -> Connection | None:
    """The extension's value, or None under a server without it."""
    return cast(Connection | None, (request.scope.get("extensions") or {}).get(EXTENSION))


def received_at(request: Request) -> float:
    """When the event loop read the request, in time.monotonic; now, under a server without the extension."""
    connection = connection_of(request)
    return time.monotonic() if connection is None else connection.received_at


@contextmanager
def watch_disconnect(request: Request) -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether the client has disconnected. Enter it once the body has been read."""
    connection = connection_of(request)
    if connection is not None:
        connection.flow.resume_reading()  # paused by a large body; a paused connection does not notice a disconnect
        yield lambda: connection.disconnected
        return
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        yield disconnect.done
    finally:
        disconnect.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
