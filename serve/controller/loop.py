"""The controller's loop: starts retrainings when there are enough corrections, and rolls out or rolls back versions.

One thread in the control application. It has no state of its own to lose: the queue, the requests and the documents
are in the store, the release is in its file, and a retraining runs in a worker process at the lowest priority.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from models.feedback.store import Store, StoreError
from models.releases import audit_outbox
from models.releases.release import ReleaseError
from serve.config import Config
from serve.controller.knowledge import KnowledgeReconciler
from serve.controller.observation import Observer, observe_home
from serve.controller.opinion_monitor import OpinionMonitor
from serve.controller.registry_sync import RegistrySync
from serve.controller.retention import PredictionRetention
from serve.controller.retraining import RetrainingReconciler
from serve.controller.rollout import RolloutReconciler
from serve.controller.workers import Workers
from serve.metrics import LoopMetrics, OpinionMetrics, keep_counts

log = logging.getLogger("flywheel.controller")

_STEP_EVERY_S = 2.0
_LOG_AGAIN_S = 600.0
Step = Callable[[], None]


class Loop:
    """Runs the reconcilers of each task in turn, as long as the process lives; a failing one does not stop others."""

    def __init__(
        self, config: Config, store: Store, metrics: LoopMetrics, workers: Workers,
        opinion_metrics: OpinionMetrics | None = None,
    ):  # fmt: skip
        self._config, self._store, self._metrics, self._workers = config, store, metrics, workers
        self._opinion = OpinionMonitor(config, store, opinion_metrics) if config.opinion.task in config.tasks else None
        self._knowledge = KnowledgeReconciler(config.home, store, workers)
        self._retention = PredictionRetention(store, config.feedback.log.keep_days)
        self._steps = {task: self._steps_of(task) for task in config.tasks}
        self._logged: dict[str, float] = {}
        """the problems logged, with the time: what lasts is not logged every two seconds, perhaps onto a full disk"""
        self._thread = threading.Thread(target=self._work, name="controller", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if self._opinion is not None:
            self._opinion.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def step(self) -> None:
        """Run what all tasks share, and the reconcilers of each, once."""
        self._attempt("metrics", keep_counts)
        self._attempt("disk", lambda: observe_home(self._config.home, self._metrics))
        self._attempt("expired predictions", self._retention.step)
        self._attempt("knowledge", self._knowledge.step)
        for task in self._steps:
            self.step_task(task)

    def step_task(self, task: str) -> None:
        """Run one task's reconcilers once. The rollout comes first, as it needs no store to roll back."""
        for step in self._steps[task]:
            self._attempt(task, step)

    def _steps_of(self, task: str) -> list[Step]:
        config, store = self._config, self._store
        retraining = RetrainingReconciler(task, config, store, self._metrics, self._workers)
        return [
            RolloutReconciler(task, config, store, self._metrics).step,
            lambda: audit_outbox.flush(config.home, task, store),
            retraining.step,
            Observer(task, config, store, self._metrics, retraining.running_s).step,
            RegistrySync(task, config.home, self._workers).step,
            *([self._opinion.step] if self._opinion is not None and task == config.opinion.task else []),
        ]

    def _work(self) -> None:
        while True:
            self.step()
            if not self._knowledge.behind and (self._opinion is None or not self._opinion.behind):
                time.sleep(_STEP_EVERY_S)

    def _attempt(self, name: str, step: Step) -> None:
        try:
            step()
        except (StoreError, ReleaseError) as error:
            problem, now = f"{name}: the controller will retry: {error}", time.monotonic()
            if now > self._logged.get(problem, -math.inf) + _LOG_AGAIN_S:
                log.warning(problem)
                self._logged[problem] = now
        except Exception:
            log.exception("%s: a step of the controller failed", name)
