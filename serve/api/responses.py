"""HTTP responses for results and errors, shared by all applications of the server."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.api.headers import FULL_MS
from serve.api.validation import to_json
from serve.errors import Internal, MethodNotAllowed, NotFound, NotReady, Overloaded, RequestError

log = logging.getLogger("flywheel.gateway")

MOVED_ENDPOINTS = ("promote", "challenge", "rollback", "retrain", "erase", "audit")
"""operators' endpoints that were below /v2/models/{task} before decision 0028"""
_DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.EFBIG}
)
_DISK_RETRY_AFTER_S = 10
Handler = Callable[[Request], Awaitable[Response]]


def plain(handler: Handler) -> Handler:
    """Wraps a handler whose requests are not counted in the metrics: its errors become responses."""

    async def wrapped(request: Request) -> Response:
        try:
            return await handler(request)
        except RequestError as error:
            return error_response(error)
        except Exception as error:
            return unforeseen(request, error)

    return wrapped


def route_of(scope: Scope, routes: Sequence[BaseRoute]) -> str:
    """The path of the route that answers, with its parameters' names in place of their values; empty without one."""
    scope = {**scope, "root_path": ""}  # as mount_at_root does it
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            return route.path
    return ""


def unforeseen(request: Request, error: Exception) -> Response:
    """The response to an error that no handler expects, which is logged: 503 when a disk refuses, otherwise 500."""
    app = request.scope.get("app")  # none for the endpoints that bypass it, whose paths have no parameters
    path = request.scope["path"] if app is None else route_of(request.scope, app.routes)
    log.error("unforeseen error in %s %s", request.method, path, exc_info=error)
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        sentence = f"a disk of the server does not do what this needs: {error.strerror}; try again when it does"
        return error_response(NotReady(sentence, retry_after=_DISK_RETRY_AFTER_S))
    return error_response(Internal("an internal error; the server's log has the cause"))


def json_response(value: Mapping[str, Any] | list[Any], status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


def error_response(error: RequestError) -> Response:
    """An error response: `{"error", "code", ...}`, with Retry-After if the error has one."""
    response = json_response(error.body(), error.status)
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    if isinstance(error, Overloaded) and error.full_s:
        response.headers[FULL_MS] = str(round(error.full_s * 1000))
    return response


def moved_endpoint(task: str, path: str) -> NotFound | None:
    """The 404 that names an operators' endpoint's new place, where `path` is its old one."""
    name = path.rpartition("/")[2]
    if path != f"/v2/models/{task}/{name}" or name not in MOVED_ENDPOINTS:
        return None
    return NotFound(f"there is nothing at {path}: operators' endpoints are at /v2/repository/models/{task}/{name}")


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405 as error responses of this server's shape."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        response = error_response(MethodNotAllowed(f"{request.method} is not allowed here; use {allowed}"))
        response.headers["allow"] = allowed
        return response
    return error_response(NotFound(f"there is nothing at {request.url.path}"))


def mount_at_root(app: ASGIApp) -> ASGIApp:
    """Clears root_path, which Ray Serve sets to the route prefix: our routes contain the whole path."""

    async def at_root(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["root_path"] = ""
        await app(scope, receive, send)

    return at_root
