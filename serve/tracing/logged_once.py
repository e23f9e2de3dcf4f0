"""A span exporter that logs when spans begin to be lost, and when they arrive again. It imports OpenTelemetry's SDK."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger("flywheel.tracing")


class LoggedOnce(SpanExporter):
    """Sends spans by `exporter`, whose own log is silenced: it has a line for each attempt."""

    def __init__(self, exporter: SpanExporter):
        self._exporter = exporter
        self._loses = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:  # of the HTTP client; it must not end the thread that sends
            result = SpanExportResult.FAILURE
        loses = result is not SpanExportResult.SUCCESS
        if loses and not self._loses:
            log.warning("traces are lost: the collector does not take them")
        elif self._loses and not loses:
            log.warning("the collector takes traces again")
        self._loses = loses
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)
