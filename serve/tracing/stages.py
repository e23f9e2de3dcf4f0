"""Spans of a retraining: one of the run, and below it one of each stage that it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from serve.tracing import spans

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from models.retraining.plan import Result

ReportStage = Callable[[str, int, int], None]
"""that of models/training/progress.py, called with (stage, steps done, steps in total)"""


class StageSpans:
    """Begins a span with each new stage, and ends the one before."""

    def __init__(self, run: Span):
        self._run = run
        self._stage: Span | None = None
        self._name = ""

    def report(self, stage: str, done: int, total: int) -> None:
        if stage == self._name or (tracer := spans.tracer()) is None:
            return
        self._end_stage()
        self._name, parent = stage, spans.below(self._run.get_span_context())
        self._stage = tracer.start_span(f"retraining {stage}", context=parent, attributes={"flywheel.stage": stage})

    def end(self, result: Result) -> None:
        """The run's outcome; its sentence, which may quote an exception, stays out."""
        self._run.set_attribute("flywheel.outcome", result.outcome)
        if result.version is not None:
            self._run.set_attribute("flywheel.version", result.version)
        if result.outcome == "failed":
            spans.mark_failed(self._run, result.outcome)

    def close(self) -> None:
        self._end_stage()
        self._run.end()

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._stage.end()


@contextmanager
def traced_stages(task: str) -> Iterator[tuple[ReportStage, Callable[[Result], None]]]:
    """In this block: the functions that take a retraining's stages and its result. Without effect while tracing is off.

    Every run is traced, whatever share of the requests is: there are a few a day.
    """
    if (tracer := spans.tracer()) is None:
        yield lambda *_: None, lambda _: None
        return
    from opentelemetry.context import Context

    run = tracer.start_span(f"retraining {task}", context=Context(), attributes={"flywheel.task": task})
    stages = StageSpans(run)
    try:
        yield stages.report, stages.end
    finally:
        stages.close()
