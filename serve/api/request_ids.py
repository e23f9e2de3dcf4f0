"""The outermost layer of both applications: each request's id, its place in a trace, and the id in its response.

The id is the client's `x-request-id` if that is safe to log, otherwise a new one. HAProxy makes one before a request
comes here (rayserve/frontend.cfg), so that its own error responses have it too. A client's `traceparent` is read as W3C
defines it; what is malformed is ignored, as a header that comes twice is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve import tracing
from serve.api.responses import route_of
from serve.engine.ids import new_id
from serve.request_context import RequestContext, current, safe_request_id, trace_id_of
from serve.tracing.spans import mark_failed

if TYPE_CHECKING:
    from opentelemetry.trace import Span

REQUEST_ID = b"x-request-id"
_OURS = frozenset({REQUEST_ID, b"traceparent", b"tracestate"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})
_TWICE = b""  # neither a safe id nor a traceparent


def with_request_ids(app: ASGIApp, routes: Sequence[BaseRoute], task: str = "", *, returns_id: bool = True) -> ASGIApp:
    """`app` with a `RequestContext` for each request, its id in the response, and its span if it is traced.

    `routes` name the span, as their paths have no value of a client in them. `task` is the application's. With
    `returns_id` false, the server in front puts the id into the response, as Ray Serve's own proxy does.
    """

    async def identified(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _OURS:
                headers[name] = _TWICE if name in headers else value
        traceparent = headers.get(b"traceparent")
        request = RequestContext(safe_request_id(headers.get(REQUEST_ID)) or new_id(), trace_id_of(traceparent))
        span = tracing.request_span(request, traceparent, headers.get(b"tracestate")) if tracing.is_on() else None
        header, status = (REQUEST_ID, request.request_id.encode()), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if returns_id:
                    message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        token = current.set(request)
        try:
            await app(scope, receive, send_with_id)
        finally:
            current.reset(token)
            if span is not None:
                _end(span, request, scope, routes, task, status)

    return identified


def _end(
    span: Span, request: RequestContext, scope: Scope, routes: Sequence[BaseRoute], task: str, status: int
) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    route = route_of(scope, routes)
    span.update_name(f"{method} {route}".rstrip())
    attributes = {
        "http.request.method": method,
        "http.route": route,
        "flywheel.request_id": request.request_id,
        "flywheel.task": task,
        "flywheel.version": request.version,
    }
    span.set_attributes({name: value for name, value in attributes.items() if value})
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        mark_failed(span, str(status))
    span.end()
