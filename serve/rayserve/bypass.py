"""Requests past Ray Serve's own per-request work, straight to the application of this process.

HAProxy already sends a request to the replica's HTTP server. Behind that server Serve wraps each request in a task that
watches for disconnection, a queue slot, a request context, tracing and metrics (docs/decisions/0009-hot-path.md). What
we need of it the gateway does itself: it counts what waits, watches deadlines and disconnection, and the server
finishes what it has accepted before it ends. Serve still starts, probes, drains and replaces the replica.

Serve takes the middlewares from the function that `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names, just before it
starts uvicorn: where we have it start our kind, with our kind of connection (serve/rayserve/http_server.py).
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.rayserve import reports

_application: ASGIApp | None = None  # of this process: a replica is a process, and has one
_loop: asyncio.AbstractEventLoop | None = None  # that Serve runs the deployment's own methods in


def install(application: ASGIApp) -> ASGIApp:
    """Let `application` answer this process' requests. Call it before Serve starts the replica's HTTP server."""
    global _application
    _application = application
    return application


def deployment_runs_here() -> None:
    """Call it in a method of the deployment: requests must be answered in the same event loop."""
    global _loop
    _loop = asyncio.get_running_loop()


def past(serve: ASGIApp) -> ASGIApp:
    """Serve's application, with ours before it."""
    application = _application
    if application is None:  # Serve's Python proxy, which stands in while there is no replica
        return serve

    reports.took("bypass")

    async def straight(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/-/"):  # HAProxy's health checks
            if _loop is asyncio.get_running_loop():
                reports.took("one_event_loop")
            await serve(scope, receive, send)
        else:
            await application(scope, receive, send)

    return straight
