"""Starts a retraining of a task on request, or when the configured rules call for one."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import Any

from export.machine import usable_cores
from models.feedback.store import RetrainingRequest, Store
from models.feedback.store.database import utc_now
from models.retraining.heartbeat import give_up, log_store_errors
from models.retraining.plan import Plan, Result, lock_of, new_owner, not_yet
from serve.config import Config
from serve.controller.drift import DriftMonitor
from serve.controller.workers import ACTOR, Workers
from serve.metrics import LoopMetrics, controller

log = logging.getLogger("flywheel.controller")

_RETRY_AFTER_S = 600.0  # after a run that failed or found another one running
_MIN_SAMPLES_FOR_DRIFT = 50  # with fewer corrections a retraining cannot repair drift


class RetrainingReconciler:
    """Runs one task's retrainings, one at a time.

    A request is a row in the store, so that it survives the controller. The run itself sets the row's state.
    """

    def __init__(self, task: str, config: Config, store: Store, metrics: LoopMetrics, workers: Workers):
        self._task = task
        self._config = config
        self._store = store
        self._metrics = metrics
        self._workers = workers
        self._run: Any = None
        self._owner = ""
        """of the lock and the leases of the current run"""
        self._began = 0.0
        """time.monotonic when the current run was started"""
        self._drift = DriftMonitor(task, config, metrics, workers)
        self._failed_at: datetime | None = None
        """when a run failed, or its process died"""
        self._retry_at = 0.0
        self._requeued = 0
        """corrections that the last run put back into the queue; they alone do not start another run"""

    def step(self) -> None:
        """Poll the current run, or start one if there is a reason. Raises StoreError; the next step continues."""
        counts = self._store.feedback.counts(self._task)
        self._metrics.set(controller.CORRECTIONS, self._task, {(state,): count for state, count in counts.items()})
        self._metrics.set(controller.SAMPLES, self._task, counts["waiting"])
        self._drift.step()
        if self._run is not None:
            if (result := self._workers.poll(self._run)) is None:
                return
            self._end(result)
        else:  # a retraining in a terminal or an erasure may have removed some of them since
            self._requeued = min(self._requeued, counts["waiting"])
        if (reason := self._reason(counts["waiting"])) is not None:
            self._start(reason)

    def running_s(self) -> float | None:
        """How long the current run has been running, in seconds; None without one."""
        return None if self._run is None else time.monotonic() - self._began

    def _start(self, reason: str) -> None:
        self._store.audit.append(self._task, "retrain started", None, ACTOR, reason)
        self._owner = new_owner()
        self._run = self._workers.start_retraining(retraining_plan(self._config, self._task), self._owner)
        self._began = time.monotonic()

    def _end(self, result: Result) -> None:
        self._run = None
        self._requeued = result.requeued
        if result.outcome == "failed":
            self._failed_at = utc_now()
            log_store_errors(lambda: give_up(self._store, self._task, self._owner))  # its process may have died
        self._retry_at = time.monotonic() + (_RETRY_AFTER_S if result.outcome in ("failed", "busy") else 0.0)
        self._metrics.retraining(self._task, result.outcome, time.monotonic() - self._began)
        self._metrics.gate(self._task, dict(result.checks))
        # A failed run's sentence has the message of an exception, which may quote a text.
        sentence = result.sentence.partition(":")[0] if result.outcome == "failed" else result.sentence
        log.warning("%s: retraining: %s: %s", self._task, result.outcome, sentence)

    def _reason(self, waiting: int) -> str | None:
        """The reason to retrain now, or None."""
        rules = self._config.learning
        self._store.retraining.recover(self._task, lock_of(self._task))
        if not_yet(self._config.home, self._task) is not None:  # a request waits until then
            return None
        pauses = time.monotonic() < self._retry_at
        if (request := self._request(pauses)) is not None:
            return f"requested by {request.actor}: {request.reason}"
        if not rules.automatic or pauses:
            return None
        new = waiting - self._requeued
        if new >= rules.min_new_samples:
            return f"{waiting} corrections wait"
        oldest = self._store.feedback.oldest_waiting(self._task) if rules.every_hours is not None and new > 0 else None
        if oldest is not None and utc_now() - oldest > timedelta(hours=rules.every_hours or 0):
            return f"corrections wait since {oldest:%Y-%m-%d %H:%M}"
        return self._drift.take() if rules.on_drift and new >= _MIN_SAMPLES_FOR_DRIFT else None

    def _request(self, pauses: bool) -> RetrainingRequest | None:
        """The request to serve now. In the pause after a failure, only one that somebody made since."""
        request = self._store.retraining.next(self._task)
        if request is None or self._store.locks.is_held(lock_of(self._task)):
            return None
        if pauses and self._failed_at is not None:  # a run that died before it took a request left it as it was
            [request] = self._store.retraining.latest(self._task, 1)
            return request if request.state == "requested" and request.requested_at > self._failed_at else None
        return request


def retraining_plan(config: Config, task: str) -> Plan:
    """The retraining plan that the configuration has for `task`."""
    learning, rollout = config.learning, config.rollout
    return Plan(
        task,
        rules=learning.curation,
        thresholds=config.thresholds(task),
        new_labels=config.tasks[task].new_labels,
        max_samples=learning.max_samples,
        eval_fraction=learning.eval_fraction,
        max_attempts=learning.max_attempts,
        initial_stage=rollout.initial_stage,
        canary_fraction=rollout.canary_fraction,
        recipe=(("method", learning.method), ("threads", usable_cores())),  # Ray limits its workers to one
        workers=learning.workers,
    )
