"""What an ASGI server may tell of a request's connection beyond ASGI, and how to do without.

Our HTTP server puts it into `scope["extensions"]` (rayserve/http_server.py). Under any other server, such as Ray
Serve's, a task waits for the client's end, as ASGI has it: correct, and dearer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

from starlette.requests import Request

EXTENSION = "flywheel.connection"


class Flow(Protocol):
    def resume_reading(self) -> None: ...


class Connection(Protocol):
    """The extension's value. uvicorn's RequestResponseCycle is one."""

    more_body: bool
    """whether a part of the body has not arrived yet"""
    disconnected: bool
    """whether the client has hung up"""
    flow: Flow


def connection_of(request: Request) -> Connection | None:
    """None under a server that does not have the extension."""
    return cast(Connection | None, (request.scope.get("extensions") or {}).get(EXTENSION))


@contextmanager
def leaving(request: Request) -> Iterator[Callable[[], bool]]:
    """Tells, whenever asked, whether the client of `request` has hung up. Enter it once the body has been read."""
    connection = connection_of(request)
    if connection is not None:
        connection.flow.resume_reading()  # a large body made it stop, and it would not see the end of the connection
        yield lambda: connection.disconnected
        return
    waits = asyncio.ensure_future(_left(request))
    try:
        yield waits.done
    finally:
        waits.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
