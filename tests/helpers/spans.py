"""Spans that this process records, and an OTLP receiver for those that a server sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serve.tracing.export import install, stop


@contextmanager
def recorded_spans(sample: float = 1.0) -> Iterator[list[ReadableSpan]]:
    """The spans that this process records in the block; the list is filled when it is left."""
    exporter, found = InMemorySpanExporter(), list[ReadableSpan]()
    install(exporter, sample, "test")
    try:
        yield found
    finally:
        stop()
        found.extend(exporter.get_finished_spans())


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it came over the wire; ids are hexadecimal, `parent` is empty for a root."""

    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    start: int
    end: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """An OTLP receiver on loopback. With `fails`, it refuses everything."""

    url: str
    fails: bool = False
    requests: int = 0
    bodies: list[bytes] = field(default_factory=list)

    def spans(self) -> list[ReceivedSpan]:
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                of_process = _plain(resource.resource.attributes)
                found += [
                    ReceivedSpan(
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        tuple(link.span_id.hex() for link in span.links),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        _plain(span.attributes),
                        of_process,
                    )
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
        return found

    def trace(self, trace: str) -> dict[str, ReceivedSpan]:
        """The spans of one trace, by name."""
        return {span.name: span for span in self.spans() if span.trace == trace}


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.requests += 1
            ok = self.path == "/v1/traces" and not receiver.fails
            if ok:
                receiver.bodies.append(body)
            self.send_response(200 if ok else 503)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
