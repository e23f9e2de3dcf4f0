"""The OpenTelemetry SDK of this process: started once, from the configuration."""

from __future__ import annotations

import logging
import os
import threading
from importlib import import_module
from typing import TYPE_CHECKING

from export.machine import flywheel_version
from serve.config import TracingConfig
from serve.tracing import spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger("flywheel.tracing")

_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_TIMEOUT_S = 5.0  # of one export, retries included; meanwhile the queue fills, then spans are dropped
_MAX_QUEUED = 2048  # spans, some 5 MB
_FLUSH_S = 5.0


def missing_package() -> str:
    """A sentence when tracing needs a package that is not installed; else empty."""
    try:
        import_module(_EXPORTER)
    except ImportError:  # it, or a package that it needs
        return "tracing.endpoint needs the extra `tracing`: pip install 'flywheel-serve[tracing]'"
    return ""


def start(settings: TracingConfig, process: str) -> None:
    """Record spans in this process from now on, if the settings ask for it. `process` is control, or a task.

    A process that lacks the packages logs that and serves without traces.
    """
    if settings.endpoint is None:
        return
    if missing := missing_package():
        log.error("no traces of this process: %s", missing)
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    install(OTLPSpanExporter(endpoint=settings.traces_url, timeout=_TIMEOUT_S), settings.sample, process)


def install(exporter: SpanExporter, sample: float, process: str) -> None:
    """Record spans in this process from now on, and send them to `exporter` in the background, in batches."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

    from serve.tracing.logged_once import LoggedOnce

    _silence_sdk()
    ours = flywheel_version()
    defaults = {"service.name": "flywheel", "service.version": ours, "service.instance.id": f"{process}-{os.getpid()}"}
    # Resource.create adds what OTEL_RESOURCE_ATTRIBUTES says; OTEL_SERVICE_NAME overrides our name.
    if name := os.environ.get("OTEL_SERVICE_NAME"):
        defaults["service.name"] = name
    # `spans.request_span` has decided already, before there is a span.
    provider = TracerProvider(ParentBased(ALWAYS_ON), Resource.create(defaults), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(LoggedOnce(exporter), max_queue_size=_MAX_QUEUED))
    spans.use(provider.get_tracer("flywheel", ours), sample, provider)


def stop(timeout_s: float = _FLUSH_S) -> None:
    """Send what is still queued, for so many seconds at most, and record nothing more. Blocks."""
    if (provider := spans.unuse()) is None:
        return
    # In a thread, since the SDK waits for a collector that is away as long as its retries last.
    sending = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
    sending.start()
    sending.join(timeout_s)


def _silence_sdk() -> None:
    """The SDK logs each attempt to reach a collector that is away; `LoggedOnce` says it once."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
