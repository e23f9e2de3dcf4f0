"""What is known of the request in progress, for its log records and spans: a context variable of its asyncio task."""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=-]{1,128}")  # also in rayserve/frontend.cfg
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(slots=True)
class RequestContext:
    request_id: str
    trace_id: str = ""
    """of the client's traceparent, or of our own trace; empty without either"""
    span: SpanContext | None = None
    """the request's span; None unless the request is traced"""
    version: str = ""
    """the version that answers, once it is chosen"""


current: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def note_version(version: str) -> None:
    """Record which version answers the current request."""
    if (request := current.get()) is not None:
        request.version = version


def safe_request_id(header: bytes | None) -> str | None:
    """The client's request id, or None unless it is 1 to 128 of the letters that are safe in logs and headers."""
    if header is None or _REQUEST_ID.fullmatch(header) is None:
        return None
    return header.decode("ascii")


def trace_id_of(traceparent: bytes | None) -> str:
    """The trace id in a W3C traceparent; empty when the header is missing or malformed."""
    if traceparent is None or (found := _TRACEPARENT.fullmatch(traceparent)) is None:
        return ""
    version, trace_id, span_id, _, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return ""
    return trace_id.decode("ascii")
