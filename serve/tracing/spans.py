"""Recording of spans. Every function here returns at once while tracing is off, or the request is not sampled."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from serve.request_context import RequestContext, current

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, Span, SpanContext, Tracer

Attribute = str | int | float | bool
Attributes = Mapping[str, Attribute]

_NOTHING = nullcontext()
_tracer: Tracer | None = None
_provider: TracerProvider | None = None
_sample = 0.0


def use(tracer: Tracer, sample: float, provider: TracerProvider | None = None) -> None:
    """Record spans with `tracer`. `sample` is the share of the requests without a traceparent that are traced."""
    global _tracer, _sample, _provider
    _sample, _provider, _tracer = sample, provider, tracer


def unuse() -> TracerProvider | None:
    """Record nothing more. Returns the provider of the tracer that was used."""
    global _tracer, _provider
    provider, _tracer, _provider = _provider, None, None
    return provider


def is_on() -> bool:
    """Whether this process records spans."""
    return _tracer is not None


def sampled() -> SpanContext | None:
    """The span of the current request; None unless the request is traced."""
    if _tracer is None or (request := current.get()) is None:
        return None
    return request.span


def request_span(request: RequestContext, traceparent: bytes | None, tracestate: bytes | None) -> Span | None:
    """Begin the span of a request, and make it the parent of those below it. None when it is not to be traced.

    A valid traceparent decides by its flag `sampled`; a request without one is traced with the configured probability.
    `request.trace_id` is that of the traceparent, empty without a valid one.
    """
    if _tracer is None:
        return None
    parent: Context | None = None
    if request.trace_id and traceparent is not None:
        if not int(traceparent[53:55], 16) & 1:
            return None
        parent = _remote_parent(traceparent, tracestate)
    elif random.random() >= _sample:
        return None
    from opentelemetry.context import Context as Empty
    from opentelemetry.trace import SpanKind

    # The route is known at the end, which also sets the name.
    started = _tracer.start_span("request", context=parent or Empty(), kind=SpanKind.SERVER)
    request.span = started.get_span_context()
    request.trace_id = f"{request.span.trace_id:032x}"
    return started


def _remote_parent(traceparent: bytes, tracestate: bytes | None) -> Context:
    from opentelemetry.context import Context as Empty
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": traceparent.decode("ascii")}
    if tracestate is not None and len(tracestate) <= 512:  # what W3C asks everyone to pass on
        carrier["tracestate"] = tracestate.decode("latin-1")
    return TraceContextTextMapPropagator().extract(carrier, context=Empty())


def span(name: str, attributes: Attributes | None = None) -> AbstractContextManager[object]:
    """A span around a block, below that of the current request; nothing when the request is not traced."""
    if _tracer is None or (parent := sampled()) is None:
        return _NOTHING
    return _around(name, (parent,), attributes)


def batch_span(
    name: str, requests: Iterable[SpanContext | None], attributes: Attributes | None = None
) -> AbstractContextManager[object]:
    """One span around a block that works for several requests at once: below the first that is traced, linked to the
    others; nothing when none is."""
    if _tracer is None:
        return _NOTHING
    traced = [request for request in requests if request is not None]
    return _around(name, traced, attributes) if traced else _NOTHING


@contextmanager
def _around(name: str, requests: Sequence[SpanContext], attributes: Attributes | None) -> Iterator[None]:
    started = time.time_ns()
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        _record(name, requests, started, time.time_ns(), attributes, error)


def record(
    name: str,
    requests: Sequence[SpanContext],
    started: float,
    ended: float,
    attributes: Attributes | None = None,
    links: Sequence[SpanContext] = (),
) -> SpanContext | None:
    """A span of what has happened between two times in time.monotonic, below the first of `requests` (at least one),
    linked to the others and to `links`."""
    offset = time.time_ns() - int(1e9 * time.monotonic())
    return _record(name, requests, offset + int(1e9 * started), offset + int(1e9 * ended), attributes, links=links)


def _record(
    name: str,
    requests: Sequence[SpanContext],
    started_ns: int,
    ended_ns: int,
    attributes: Attributes | None,
    error: BaseException | None = None,
    links: Sequence[SpanContext] = (),
) -> SpanContext | None:
    if (tracer := _tracer) is None:  # stopped meanwhile
        return None
    first, *others = requests
    made = tracer.start_span(
        name, context=below(first), attributes=attributes, links=_links([*others, *links]), start_time=started_ns
    )
    if error is not None:
        mark_failed(made, type(error).__name__)
    made.end(ended_ns)
    return made.get_span_context()


def below(parent: SpanContext) -> Context:
    """The context of a span below `parent`."""
    from opentelemetry.context import Context as Empty
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(parent), Empty())


def _links(linked: Sequence[SpanContext]) -> list[Link]:
    from opentelemetry.trace import Link

    return [Link(context) for context in linked]


def mark_failed(failed: Span, error: str) -> None:
    """`error` names a class or a code: a message may quote a text."""
    from opentelemetry.trace import StatusCode

    failed.set_attribute("error.type", error)
    failed.set_status(StatusCode.ERROR)


def tracer() -> Tracer | None:
    """The tracer of this process; None while tracing is off."""
    return _tracer
