"""Spans of a batch: how long each traced request waited for it, and the model's run, which they share."""

from __future__ import annotations

from collections.abc import Sequence

from serve import tracing
from serve.engine.queue import Entry


def record_batch(version: str, batch: Sequence[Entry], started: float, ended: float) -> None:
    """Record the spans `queue`, of each traced request whose first texts are in `batch`, and one span `session`.

    The session's span is below the first of these requests, and linked to the others, whose `queue` spans are linked to
    it. `started` and `ended` are the model's, in time.monotonic.
    """
    found = {id(request): request for entry in batch for request, _ in entry.places if request.span is not None}
    spans = [request.span for request in found.values() if request.span is not None]
    if not spans:
        return
    longest, texts = max(entry.length for entry in batch), len(batch)
    tokens = sum(entry.length for entry in batch)
    session = tracing.record(
        "session",
        spans,
        started,
        ended,
        {
            "flywheel.version": version,
            "flywheel.batch.texts": texts,
            "flywheel.batch.tokens": tokens,
            "flywheel.batch.padding": texts * longest - tokens,
        },
    )
    for request in found.values():
        if request.span is not None and not request.started and request.since <= started:
            links = [session] if session is not None and request.span is not spans[0] else []
            tracing.record("queue", [request.span], request.since, started, links=links)
