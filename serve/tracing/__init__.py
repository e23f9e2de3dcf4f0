"""OpenTelemetry spans of requests and retrainings, sent by OTLP over HTTP. Off unless `tracing.endpoint` is set.

A request that is not sampled has no span objects; while tracing is off, each place that could record a span tests one
variable (`is_on`). Spans have no texts, users or messages of exceptions: names, numbers, versions and ids only.
"""

from serve.tracing.spans import batch_span, is_on, record, request_span, sampled, span
from serve.tracing.stages import traced_stages

__all__ = ["batch_span", "is_on", "record", "request_span", "sampled", "span", "traced_stages"]
