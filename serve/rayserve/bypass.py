"""Requests past Ray Serve's own per-request work, straight to the application of this process.

HAProxy already sends a request to the replica's HTTP server. Behind that server Serve wraps each request in a task that
watches for disconnection, a queue slot, a request context, tracing and metrics (docs/decisions/0009-hot-path.md). What
we need of it the gateway does itself: it counts what waits, watches deadlines and disconnection, and the server
finishes what it has accepted before it ends. Serve still starts, probes, drains and replaces the replica.

Serve takes the middlewares from the function that `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names, just before it
starts uvicorn: where we have it start our kind, with our kind of connection (serve/rayserve/http_server.py).
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

_application: ASGIApp | None = None  # of this process: a replica is a process, and has one


def install(application: ASGIApp) -> ASGIApp:
    """Let `application` answer this process' requests. Call it before Serve starts the replica's HTTP server."""
    global _application
    _application = application
    return application


def past(serve: ASGIApp) -> ASGIApp:
    """Serve's application, with ours before it."""
    application = _application
    if application is None:  # Serve's Python proxy, which stands in while there is no replica
        return serve

    async def straight(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/-/"):  # HAProxy's health checks
            await serve(scope, receive, send)
        else:
            await application(scope, receive, send)

    return straight
