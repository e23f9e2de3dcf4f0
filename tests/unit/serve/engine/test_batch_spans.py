"""The spans of a batch: one session, and a queue of each traced request that waited for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from opentelemetry.sdk.trace import ReadableSpan

from serve import tracing
from serve.config import BatchingConfig
from serve.engine.batcher import Batcher
from serve.metrics import Metrics
from serve.request_context import RequestContext, current
from tests.helpers.collectors import registry_restored
from tests.helpers.spans import recorded_spans


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    with registry_restored():
        yield Metrics("test")


def run(metrics: Metrics, requests: Sequence[tuple[bool, list[tuple[int, ...]]]]) -> list[ReadableSpan]:
    """The spans of requests, (whether it is traced, its texts), that all wait while the model runs another one."""
    gate = threading.Event()

    def model(rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        gate.wait(5)
        return np.array([[row[0]] for row in rows], np.float32)

    async def submit(batcher: Batcher, rows: list[tuple[int, ...]], traced: bool) -> None:
        request = RequestContext("r")
        span = tracing.request_span(request, None, None) if traced else None
        current.set(request)
        await batcher.submit(rows, asyncio.get_running_loop().time() + 60)
        if span is not None:
            span.end()

    async def serve() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(model, pool, BatchingConfig(), metrics, "3", cache_size=10)
            batcher.start()
            tasks = [asyncio.create_task(submit(batcher, [(9,)], False))]
            await asyncio.sleep(0.05)
            tasks += [asyncio.create_task(submit(batcher, rows, traced)) for traced, rows in requests]
            await asyncio.sleep(0.05)
            gate.set()
            await asyncio.gather(*tasks)
            await batcher.stop()

    with recorded_spans() as spans:
        asyncio.run(serve())
    return spans


def named(spans: list[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in spans if span.name == name]


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def test_a_request_waits_and_its_texts_run(metrics: Metrics) -> None:
    spans = run(metrics, [(True, [(1, 2), (3, 4, 5)]), (False, [(6, 7)])])
    (request,), (queue,), (session,) = (named(spans, name) for name in ("request", "queue", "session"))
    assert parent_of(queue) == parent_of(session) == request.context.span_id
    assert dict(session.attributes or {}) == {
        "flywheel.version": "3",
        "flywheel.batch.texts": 3,
        "flywheel.batch.tokens": 7,
        "flywheel.batch.padding": 2,
    }
    assert queue.end_time is not None
    assert queue.start_time is not None
    assert session.start_time is not None
    assert queue.end_time - queue.start_time > 0.03e9  # the gate was closed
    assert abs(queue.end_time - session.start_time) < 0.01e9


def test_requests_of_one_batch_share_its_session(metrics: Metrics) -> None:
    spans = run(metrics, [(True, [(1, 2)]), (True, [(3, 4)])])
    (session,), queues = named(spans, "session"), named(spans, "queue")
    first, second = sorted(named(spans, "request"), key=lambda span: span.start_time or 0)
    assert parent_of(session) == first.context.span_id
    assert [link.context.span_id for link in session.links] == [second.context.span_id]
    links = {parent_of(queue): [link.context.span_id for link in queue.links] for queue in queues}
    assert links == {first.context.span_id: [], second.context.span_id: [session.context.span_id]}


def test_a_batch_without_a_traced_request_has_no_spans(metrics: Metrics) -> None:
    assert run(metrics, [(False, [(1, 2)]), (False, [(3, 4)])]) == []


def test_a_cached_text_has_neither(metrics: Metrics) -> None:
    """It joins the text in flight, which began before it came."""
    spans = run(metrics, [(True, [(9,)])])
    assert {span.name for span in spans} <= {"request", "session"}
