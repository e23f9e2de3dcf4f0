"""Sets gauges that nothing else needs: from releases, the store, the progress of a retraining, and the cluster."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from export.machine import usable_cores
from models.feedback.store import Store
from models.feedback.store.database import utc_now
from models.home import progress_file, release_file
from models.releases.release import Release, ReleaseError, read_release
from models.retraining.plan import lock_of
from models.training.progress import read_progress
from serve.api.repository import DELETING, RUNNING, UNLOADED, Applications, ApplicationsError
from serve.config import Config
from serve.metrics import LoopMetrics, controller

log = logging.getLogger("flywheel.controller")

_STORE_EVERY_S = _APPLICATIONS_EVERY_S = 15.0
_CORRECTED_EVERY_S = 60.0  # it counts the log's index
_WINDOW = timedelta(days=7)
_MAX_LABELS = 10_000
_MAX_ANSWERS = 1_000_000


class Observer:
    """Observes one task; `running_s` gives how long the controller's own retraining runs, None without one."""

    def __init__(
        self, task: str, config: Config, store: Store, metrics: LoopMetrics, running_s: Callable[[], float | None]
    ):
        self._task, self._home, self._store, self._metrics = task, config.home, store, metrics
        self._running_s = running_s
        self._release: Release | None = None
        self._store_due = self._corrected_due = 0.0
        metrics.set(controller.NEEDED, task, config.learning.min_new_samples)

    def step(self) -> None:
        """Set what changes in seconds; what the store has to look for, every `_STORE_EVERY_S`. Raises StoreError."""
        self._observe_release()
        self._observe_progress()
        now = time.monotonic()
        if now >= self._store_due:
            self._store_due = now + _STORE_EVERY_S  # before they fail: a store that is away is not asked more often
            self._observe_retrainings()
            self._observe_accuracy()
        if now >= self._corrected_due:
            self._corrected_due = now + _CORRECTED_EVERY_S
            corrected, answers = self._store.feedback.corrected_answers(self._task, utc_now() - _WINDOW, _MAX_ANSWERS)
            self._metrics.set(controller.CORRECTED, self._task, corrected / answers if answers else None)

    def _observe_release(self) -> None:
        try:
            release = read_release(self._home, self._task)
            written = release_file(self._home, self._task).stat().st_mtime
        except (ReleaseError, OSError):  # told by others
            return
        if self._release is not None and (step := step_between(self._release, release)) is not None:
            self._metrics.move(self._task, step)
        self._release = release
        fractions = {(release.champion, "champion"): release.traffic(release.champion)}
        if release.challenger is not None:
            fractions[release.challenger, str(release.mode)] = release.traffic(release.challenger)
        self._metrics.set(controller.RELEASE, self._task, fractions)
        released = release.promoted.timestamp() if release.promoted is not None else written
        self._metrics.set(controller.RELEASED, self._task, released)

    def _observe_progress(self) -> None:
        own_s = self._running_s()
        found = read_progress(self._home, self._task, running=True)
        running_s, stage = own_s or 0.0, None
        if "stage" in found and (own_s is not None or self._store.locks.is_held(lock_of(self._task))):
            stage = found["stage"]
            # The file stands still when the run does.
            running_s = max(running_s, found["seconds"] + _age_s(progress_file(self._home, self._task)))
        stages = dict.fromkeys(((name,) for name in controller.STAGES), 0.0)
        if stage is not None:
            stages[stage,] = 1.0
        self._metrics.set(controller.STAGE, self._task, stages)
        self._metrics.set(controller.RUNNING, self._task, running_s)

    def _observe_retrainings(self) -> None:
        oldest = self._store.feedback.oldest_waiting(self._task)
        age_s = 0.0 if oldest is None else max(0.0, (utc_now() - oldest).total_seconds())
        self._metrics.set(controller.OLDEST, self._task, age_s)
        last: dict[tuple[str, ...], float] = {}
        refusals, is_accepted = 0, False
        for outcome, at in self._store.audit.retrainings(self._task, controller.OUTCOMES):
            last.setdefault((outcome,), at.timestamp())
            is_accepted = is_accepted or outcome == "released"
            refusals += outcome == "refused" and not is_accepted
        self._metrics.set(controller.LAST, self._task, last)
        self._metrics.set(controller.REFUSALS, self._task, refusals)

    def _observe_accuracy(self) -> None:
        found = self._store.feedback.live_accuracy(self._task, utc_now() - _WINDOW, _MAX_LABELS)
        accuracy = {(version,): right / total for version, (right, total) in found.items()}
        self._metrics.set(controller.ACCURACY, self._task, accuracy)
        judged = {(version,): float(total) for version, (_, total) in found.items()}
        self._metrics.set(controller.JUDGED, self._task, judged)


class ReplicasObserver:
    """Sets how many replicas each task should have: those configured, or 0 while an operator has it unloaded.

    In a thread of its own (`start`): the cluster may take long to answer, and the controller must roll back meanwhile.
    """

    def __init__(self, config: Config, applications: Applications, metrics: LoopMetrics):
        self._config, self._applications, self._metrics = config, applications, metrics
        self._set(dict.fromkeys(config.tasks, RUNNING))

    def start(self) -> None:
        threading.Thread(target=self._work, name="replicas", daemon=True).start()

    def step(self) -> None:
        with suppress(ApplicationsError):  # of no use here; those who ask for readiness are told
            self._set(self._applications.states())

    def _set(self, states: dict[str, str]) -> None:
        for task, state in states.items():
            count = 0 if state in (UNLOADED, DELETING) else self._config.tasks[task].replica_count(usable_cores())
            self._metrics.set(controller.CONFIGURED, task, count)

    def _work(self) -> None:
        while True:
            time.sleep(_APPLICATIONS_EVERY_S)
            try:
                self.step()
            except Exception:
                log.exception("the applications' states cannot be read")


def observe_home(home: Path, metrics: LoopMetrics) -> None:
    """Set the free space of the home's file system: 0 when it does not tell, as a disk that went away."""
    try:
        total, _, free = shutil.disk_usage(home)
    except OSError:
        total = free = 0
    metrics.home(free, total)


def step_between(before: Release, now: Release) -> str | None:
    """The move that made one release of the other: promote, canary, shadow or rollback; None when there was none."""
    if now.champion != before.champion:
        return "rollback" if now.champion == before.previous and now.previous is None else "promote"
    if (now.challenger, now.mode, now.share) == (before.challenger, before.mode, before.share):
        return None
    return now.mode or "rollback"


def _age_s(path: Path) -> float:
    """Seconds since the file was written."""
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except OSError:
        return 0.0
