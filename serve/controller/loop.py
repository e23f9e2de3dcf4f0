"""What moves by itself: retraining when corrections have gathered, and versions on live evidence.

One thread in the control application. It holds nothing that cannot be lost: the queue is in the store, the release in
its file, and a retraining runs in a Ray worker of its own, at the lowest priority.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from export.machine import usable_cores
from models.feedback.store import Store, StoreError
from models.feedback.store.database import utc_now
from models.releases import audit_outbox
from models.releases.release import Release, ReleaseChanged, ReleaseError, read_aliased, read_release
from models.releases.rollout import Rollout
from models.retraining.plan import ASKED, Plan
from models.tasks.base import get_task
from serve.config import Config
from serve.controller.canary_analysis import Tally, Verdict, collected, decide, unloadable, watch
from serve.metrics import LoopMetrics, collect

log = logging.getLogger("flywheel.loop")

WHO = "the loop"
_TURN_S = 2.0
_AGAIN_S = 600.0  # after a run that failed, or found another at work
_EXPIRE_EVERY_S = 3600.0
_DRIFT_EVERY_S = 1800.0
_ALIAS_AGAIN_S = 60.0  # after MLflow did not answer: to ask it costs a process and its imports
_LEAST_FOR_DRIFT = 50  # corrections: drift with nothing to learn from is for a person to look at


@dataclass
class _Watched:
    """One task: its run, if there is one, and since when its challenger is looked at."""

    run: Any = None
    left_waiting: int = 0
    """corrections that the last run left in the queue: those do not start another"""
    not_before: float = 0.0
    drift_at: float = 0.0
    drift: Any = None
    release: Release | None = None
    began: float = 0.0
    before: dict[str, Tally] = field(default_factory=dict)
    aliased: Release | None = None
    """what MLflow's aliases are taken to say where nobody has written it down: the first release that was seen"""
    aliasing: Any = None
    alias_at: float = 0.0


class Loop:
    """`start_run(plan)`, `start_drift(task)` and `start_follow(task)` begin work elsewhere and return something that
    `poll` asks for its result: None while it runs. Without MLflow there is nothing that follows."""

    def __init__(
        self,
        config: Config,
        metrics: LoopMetrics,
        start_run: Callable[[Plan], Any],
        start_drift: Callable[[str], Any],
        start_follow: Callable[[str], Any] | None,
        poll: Callable[[Any], Any],
    ):
        self._config = config
        self._metrics = metrics
        self._store = Store(config.feedback.store_url(config.home), patience_s=2.0)
        self._start_run, self._start_drift, self._start_follow, self._poll = start_run, start_drift, start_follow, poll
        self._watched = {task: _Watched() for task in config.tasks}
        self._migrated = False
        self._expire_at = 0.0
        self._thread = threading.Thread(target=self._work, name="loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _work(self) -> None:
        while True:
            self.turns()
            time.sleep(_TURN_S)

    def turns(self) -> None:
        """Look at each task once."""
        self._go_on("old predictions", self._expire)
        for task in self._watched:
            self.turn(task)

    def turn(self, task: str) -> None:
        """Look at one task once. A version that fails is taken back whether the store answers or not."""
        watched = self._watched[task]
        if self._config.rollout.automatic:
            self._go_on(task, lambda: self._roll_out(task, watched))
        self._go_on(task, lambda: audit_outbox.flush(self._config.home, task, self._store))
        self._go_on(task, lambda: self._learn(task, watched))
        self._go_on(task, lambda: self._follow(task, watched))

    def _go_on(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (StoreError, ReleaseError) as error:
            log.warning("%s: the loop waits: %s", what, error)
        except Exception:
            log.exception("%s: the loop goes on", what)

    def _opened(self) -> Store:
        """The store with its tables made. Raises StoreError."""
        if not self._migrated:
            self._store.migrate()
            self._migrated = True
        return self._store

    def _expire(self) -> None:
        if time.monotonic() >= self._expire_at:
            self._opened().expire(utc_now() - timedelta(days=self._config.feedback.log.keep_days))
            self._expire_at = time.monotonic() + _EXPIRE_EVERY_S

    def _learn(self, task: str, watched: _Watched) -> None:
        counts = self._opened().counts(task)
        self._metrics.corrections(task, counts)
        self._retrain(task, watched, counts["waiting"])

    def _retrain(self, task: str, watched: _Watched, waiting: int) -> None:
        if watched.run is not None:
            if (result := self._poll(watched.run)) is None:
                return
            watched.run = None
            watched.left_waiting = result.left
            watched.not_before = time.monotonic() + (_AGAIN_S if result.outcome in ("failed", "busy") else 0.0)
            self._metrics.retraining(task, result.outcome)
            log.warning("%s: retraining: %s: %s", task, result.outcome, result.sentence)
        else:  # some of those may have been learned in a terminal, erased or taken back since
            watched.left_waiting = min(watched.left_waiting, waiting)
        if (why := self._reason(task, watched, waiting)) is not None:
            self._store.audit(task, "retrain started", None, WHO, why)
            watched.run = self._start_run(plan_of(self._config, task))

    def _reason(self, task: str, watched: _Watched, waiting: int) -> str | None:
        """Why to retrain now, if there is a reason."""
        rules = self._config.learning
        for entry in self._store.audits(task, 20):
            if entry.action == "retrain started":
                break
            if entry.action == ASKED:
                return f"asked for by {entry.who}: {entry.why}"
        if not rules.automatic or time.monotonic() < watched.not_before:
            return None
        new = waiting - watched.left_waiting
        if new >= rules.after:
            return f"{waiting} corrections wait"
        oldest = self._store.oldest_waiting(task) if rules.every_hours is not None and new > 0 else None
        if oldest is not None and utc_now() - oldest > timedelta(hours=rules.every_hours or 0):
            return f"corrections wait since {oldest:%Y-%m-%d %H:%M}"
        tested = rules.on_drift and get_task(task).supports_drift_test
        return self._drifted(task, watched) if tested and new >= _LEAST_FOR_DRIFT else None

    def _drifted(self, task: str, watched: _Watched) -> str | None:
        if watched.drift is None:
            if time.monotonic() >= watched.drift_at:
                watched.drift, watched.drift_at = self._start_drift(task), time.monotonic() + _DRIFT_EVERY_S
            return None
        if (found := self._poll(watched.drift)) is None:
            return None
        watched.drift = None
        if not isinstance(found, str):
            log.warning("%s: the test for drift did not end: %s", task, found)
            return None
        return found or None

    def _roll_out(self, task: str, watched: _Watched) -> None:
        home = self._config.home
        release = read_release(home, task)
        watch_until = release.promoted and release.promoted + timedelta(seconds=self._config.rollout.watch_s)
        is_watched = release.previous is not None and watch_until is not None and utc_now() < watch_until
        if release.challenger is None and not is_watched:
            watched.release = None
            return
        samples = collected(collect())
        versions = [*release.versions, *([release.previous] if release.previous else [])]
        tallies = {version: Tally.of(samples, task, version) for version in versions}
        if watched.release != release:
            watched.release, watched.began, watched.before = release, time.monotonic(), tallies
            return
        since = {version: tally.since(watched.before[version]) for version, tally in tallies.items()}
        if release.challenger is None:
            before = watched.before[str(release.previous)]
            verdict = watch(since[release.champion], before, self._config.rollout)
            self._move(Rollout(home, self._store, task, WHO), release, verdict)
            return
        age = time.monotonic() - watched.began
        if (why := unloadable(release, samples, age, self._config.rollout)) is not None:
            self._move(Rollout(home, self._store, task, WHO), release, Verdict("rollback", why))
            return
        accuracy = self._accuracy(task, age)
        verdict = decide(
            release, since[release.challenger], since[release.champion], accuracy or {}, age, self._config.rollout
        )
        if accuracy is None and verdict.step != "rollback":
            return  # it goes no further before it is known what users said of it
        self._move(Rollout(home, self._store, task, WHO), release, verdict)

    def _accuracy(self, task: str, age_s: float) -> dict[str, tuple[int, int]] | None:
        """What users said in the last seconds; None when the store does not answer."""
        try:
            return self._opened().live_accuracy(task, utc_now() - timedelta(seconds=age_s))
        except StoreError as error:
            log.warning("%s: nothing is known of the live accuracy: %s", task, error)
            return None

    def _move(self, rollout: Rollout, release: Release, verdict: Verdict) -> None:
        if verdict.step == "wait":
            return
        try:
            if verdict.step == "promote":
                rollout.promote(release.challenger, verdict.why, release)
            elif verdict.step == "canary":
                rollout.challenge(str(release.challenger), "canary", self._config.rollout.share, verdict.why, release)
            else:
                rollout.rollback(verdict.why, expected=release)
        except ReleaseChanged:  # by an operator, a moment ago: the next turn looks at what there is then
            log.warning("%s: no %s: the release was moved meanwhile", release.task, verdict.step)
        else:
            self._metrics.move(release.task, verdict.step)

    def _follow(self, task: str, watched: _Watched) -> None:
        """Have MLflow's aliases brought after the release, whoever moved it, in a process that may import MLflow."""
        if watched.aliasing is not None:
            if (done := self._poll(watched.aliasing)) is None:
                return
            watched.aliasing = None
            if done is not True:
                watched.alias_at = time.monotonic() + _ALIAS_AGAIN_S
                log.warning("%s: MLflow's aliases are behind the release", task)
        release = read_release(self._config.home, task)
        watched.aliased = read_aliased(self._config.home, task) or watched.aliased or release
        if release != watched.aliased and self._start_follow is not None and time.monotonic() >= watched.alias_at:
            watched.aliasing = self._start_follow(task)


def plan_of(config: Config, task: str) -> Plan:
    """How the configuration has a task retrained."""
    learning, rollout = config.learning, config.rollout
    return Plan(
        task,
        rules=learning.curation,
        thresholds=config.thresholds(task),
        new_labels=config.tasks[task].new_labels,
        max_samples=learning.most,
        held_out=learning.held_out,
        attempts=learning.attempts,
        start=rollout.start,
        share=rollout.share,
        recipe=(("method", learning.method), ("threads", usable_cores())),  # Ray's workers are told to use one
        workers=learning.workers,
    )
