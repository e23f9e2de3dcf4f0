"""Tests a task's logged predictions for drift, at a fixed interval, whatever is done about it."""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from models.tasks.base import get_task
from serve.config import Config
from serve.controller.workers import Workers
from serve.metrics import LoopMetrics, controller

log = logging.getLogger("flywheel.controller")

_FIRST_AFTER_S = 120.0  # at least, and at most twice that: a start has other work, and tasks should not test at once


class DriftMonitor:
    """Runs one task's drift tests in worker processes, and sets their gauges. Does nothing for a ranker."""

    def __init__(self, task: str, config: Config, metrics: LoopMetrics, workers: Workers):
        self._task, self._metrics, self._workers = task, metrics, workers
        self._every_s = config.learning.drift_every_s
        self._is_tested = get_task(task).supports_drift_test
        self._due = time.monotonic() + min(random.uniform(1, 2) * _FIRST_AFTER_S, self._every_s)
        self._test: Any = None
        self._finding: str | None = None

    def step(self) -> None:
        """Poll the test that runs, or start one that is due."""
        if self._test is not None:
            if (found := self._workers.poll(self._test)) is not None:
                self._test = None
                self._end(found)
        elif self._is_tested and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every_s
            self._test = self._workers.start_drift_test(self._task)

    def take(self) -> str | None:
        """The drift that the newest test found, as a sentence, if it was not taken yet."""
        finding, self._finding = self._finding, None
        return finding

    def _end(self, found: Any) -> None:
        if not isinstance(found, dict):
            log.warning("%s: the drift test failed: %s", self._task, found.sentence)
            return
        self._metrics.set(controller.DRIFT, self._task, {(name,): drift.statistic for name, drift in found.items()})
        self._metrics.set(controller.DRIFT_BOUND, self._task, {(name,): drift.bound for name, drift in found.items()})
        self._finding = next((drift.sentence for drift in found.values() if drift.drifted), None)
