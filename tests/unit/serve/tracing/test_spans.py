"""Which requests are traced, what is below what, and that a collector that is away costs one line of log."""

from __future__ import annotations

import logging
import time
from itertools import pairwise

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from models.retraining.plan import Result
from serve import tracing
from serve.request_context import RequestContext, current, trace_id_of
from serve.tracing import export
from tests.helpers.spans import recorded_spans

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def begin(traceparent: str | None = None, tracestate: str | None = None) -> RequestContext:
    """A request that has begun and ended."""
    header = None if traceparent is None else traceparent.encode()
    request = RequestContext("r", trace_id_of(header))
    span = tracing.request_span(request, header, None if tracestate is None else tracestate.encode())
    if span is not None:
        span.end()
    return request


def traced() -> SpanContext:
    span = begin(f"00-{TRACE}-{SPAN}-01").span
    assert span is not None
    return span


def test_nothing_is_recorded_while_tracing_is_off() -> None:
    assert not tracing.is_on()
    assert begin(f"00-{TRACE}-{SPAN}-01").span is None
    assert tracing.sampled() is None
    with tracing.span("a"), tracing.batch_span("b", [None]), tracing.traced_stages("intent") as (report, end):
        report("curating", 0, 0)
        end(Result("too_few", "none"))


def test_the_flag_of_a_traceparent_decides_whatever_the_configured_share_is() -> None:
    with recorded_spans(sample=0.0) as spans:
        assert begin(f"00-{TRACE}-{SPAN}-01", "vendor=1").span is not None
        assert begin(f"00-{TRACE}-{SPAN}-03").span is not None  # further flags
    assert [(f"{s.context.trace_id:032x}", f"{s.parent.span_id:016x}") for s in spans if s.parent] == [
        (TRACE, SPAN)
    ] * 2
    assert spans[0].context.trace_state.get("vendor") == "1"
    with recorded_spans(sample=1.0) as spans:
        request = begin(f"00-{TRACE}-{SPAN}-00")
    assert (request.span, request.trace_id, spans) == (None, TRACE, [])  # its id is in the log all the same


@pytest.mark.parametrize("header", [None, "", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", "x" * 10_000])
def test_without_a_valid_traceparent_a_share_of_the_requests_is_traced(header: str | None) -> None:
    with recorded_spans(sample=0.25) as spans:
        for _ in range(400):
            begin(header)
    assert 50 < len(spans) < 150
    assert {span.parent for span in spans} == {None}


@pytest.mark.parametrize("tracestate", ["", "no pair", "x" * 600, "é=1", ",,,", "a=1,a=2"])
def test_a_malformed_tracestate_is_ignored(tracestate: str) -> None:
    with recorded_spans(sample=0.0) as spans:
        begin(f"00-{TRACE}-{SPAN}-01", tracestate)
    assert [f"{span.context.trace_id:032x}" for span in spans] == [TRACE]


def test_a_span_is_below_that_of_the_current_request() -> None:
    with recorded_spans() as spans:
        request = begin()
        token = current.set(request)
        with pytest.raises(ValueError, match="secret"), tracing.span("tokenize", {"flywheel.texts": 2}):
            raise ValueError("secret text")
        current.reset(token)
    by_name = {span.name: span for span in spans}
    child = by_name["tokenize"]
    assert child.parent is not None
    assert request.span is not None
    assert child.parent.span_id == request.span.span_id
    assert dict(child.attributes or {}) == {"flywheel.texts": 2, "error.type": "ValueError"}
    assert "secret" not in child.to_json()


def test_one_span_of_a_batch_is_below_its_first_traced_request_and_linked_to_the_others() -> None:
    with recorded_spans() as spans:
        first, second = traced(), traced()
        with tracing.batch_span("store feedback", [None, first, None, second]):
            pass
        with tracing.batch_span("untraced", [None, None]):
            pass
    (batch,) = [span for span in spans if span.name != "request"]
    assert batch.name == "store feedback"
    assert batch.parent is not None
    assert batch.parent.span_id == first.span_id
    assert [link.context.span_id for link in batch.links] == [second.span_id]


def test_times_of_the_monotonic_clock_become_times_of_the_day() -> None:
    with recorded_spans() as spans:
        now = time.monotonic()
        tracing.record("queue", [traced()], now - 2.0, now - 0.5)
    (queue,) = [span for span in spans if span.name == "queue"]
    assert queue.start_time is not None
    assert queue.end_time is not None
    assert (queue.end_time - queue.start_time) / 1e9 == pytest.approx(1.5, abs=0.001)
    assert time.time() - queue.end_time / 1e9 == pytest.approx(0.5, abs=5)


def test_stages_of_a_retraining_follow_each_other_below_the_run() -> None:
    with recorded_spans(sample=0.0) as spans, tracing.traced_stages("intent") as (report, end):
        for stage, done in (("curating", 0), ("training", 0), ("training", 1), ("judging", 0)):
            report(stage, done, 1)
        end(Result("released", "by alice@example.com", "4"))
    *stages, run = spans
    assert [span.name for span in stages] == ["retraining curating", "retraining training", "retraining judging"]
    assert run.name == "retraining intent"
    assert dict(run.attributes or {}) == {
        "flywheel.task": "intent",
        "flywheel.outcome": "released",
        "flywheel.version": "4",
    }
    assert {span.parent and span.parent.span_id for span in stages} == {run.context.span_id}
    for before, after in pairwise(stages):
        assert before.end_time is not None
        assert after.start_time is not None
        assert before.end_time <= after.start_time


def test_a_run_that_is_interrupted_ends_its_spans() -> None:
    def interrupted() -> None:
        with tracing.traced_stages("intent") as (report, _):
            report("training", 0, 1)
            raise KeyboardInterrupt

    with recorded_spans() as spans, pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [span.name for span in spans] == ["retraining training", "retraining intent"]


def test_a_collector_that_is_away_is_logged_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    class Away(InMemorySpanExporter):
        def __init__(self) -> None:
            super().__init__()
            self.results = [SpanExportResult.FAILURE, OSError, SpanExportResult.FAILURE, SpanExportResult.SUCCESS]

        def export(self, spans: object) -> SpanExportResult:
            result = self.results.pop(0)
            if isinstance(result, type):
                raise result("http://collector.example/?token=secret")
            return result

    exporter = Away()
    with caplog.at_level(logging.INFO):
        export.install(exporter, 1.0, "test")
        provider = export.spans._provider
        assert provider is not None
        for _ in range(4):
            begin()
            provider.force_flush()
        export.stop()
    assert exporter.results == []
    said = [record.getMessage() for record in caplog.records]
    assert said == ["traces are lost: the collector does not take them", "the collector takes traces again"]
