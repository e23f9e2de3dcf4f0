"""Routes requests directly to this process's application, past Ray Serve's own per-request work.

HAProxy already sends a request to the replica's HTTP server. Behind that server, Serve wraps each request in a task
that watches for disconnects, a queue slot, a request context, tracing and metrics (docs/decisions/0009-hot-path.md).
The gateway does what we need of that: admission, deadlines and disconnects; and the server finishes accepted requests
before it ends. Serve still starts, probes, drains and replaces the replica.

Serve calls the function named by `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` for middlewares just before it starts
uvicorn; there we install our own server and protocol classes (serve/rayserve/http_server.py).
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.rayserve import reports

_application: ASGIApp | None = None  # of this process, which is one replica
_loop: asyncio.AbstractEventLoop | None = None  # in which Serve runs the deployment's methods


def install(application: ASGIApp) -> ASGIApp:
    """Let `application` answer this process's requests. Call it before Serve starts the replica's HTTP server."""
    global _application
    _application = application
    return application


def note_deployment_loop() -> None:
    """Record the event loop of the deployment's methods, to check that it also handles the requests."""
    global _loop
    _loop = asyncio.get_running_loop()


def with_bypass(serve: ASGIApp) -> ASGIApp:
    """An application that sends requests to ours, and HAProxy's health checks to Serve's.

    Returns `serve` itself when no application is installed.
    """
    application = _application
    if application is None:  # this is Serve's Python proxy, used while there is no replica
        return serve

    reports.record("bypass")

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/-/"):  # HAProxy's health checks
            if _loop is asyncio.get_running_loop():
                reports.record("one_event_loop")
            await serve(scope, receive, send)
        else:
            await application(scope, receive, send)

    return dispatch
