"""Moves a challenger on, promotes it or rolls it back, and takes back a promotion whose answers fail."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from models.feedback.store import Store, StoreError
from models.feedback.store.database import utc_now
from models.releases.release import Release, ReleaseChanged, read_release
from models.releases.rollout import Rollout
from serve.config import Config
from serve.controller.canary_analysis import (
    RolloutDecision,
    Samples,
    VersionCounts,
    collected,
    decide,
    unloadable,
    watch,
)
from serve.controller.workers import ACTOR
from serve.metrics import LoopMetrics, collect

log = logging.getLogger("flywheel.controller")


class RolloutReconciler:
    """One task's release, moved on what its versions' answers and its users say. Needs no store to roll back."""

    def __init__(self, task: str, config: Config, store: Store, metrics: LoopMetrics):
        self._task = task
        self._home = config.home
        self._rules = config.rollout
        self._store = store
        self._metrics = metrics
        self._rollout = Rollout(config.home, store, task, ACTOR)
        self._watched: Release | None = None
        self._began = 0.0
        """on the clock of time.monotonic: when `_watched` was first seen, and `_before` counted"""
        self._before: dict[str, VersionCounts] = {}

    def step(self) -> None:
        """Raises ReleaseError where the task has no readable release."""
        release = read_release(self._home, self._task)
        if release.challenger is None and not self._is_recently_promoted(release):
            self._watched = None
            return
        samples = collected(collect())
        versions = [*release.versions, *([release.previous] if release.previous else [])]
        counts = {version: VersionCounts.of(samples, self._task, version) for version in versions}
        if self._watched != release:
            self._watched, self._began, self._before = release, time.monotonic(), counts
            return
        since = {version: count.since(self._before[version]) for version, count in counts.items()}
        decision = self._decide(release, since, samples)
        if decision.step != "wait":
            self._move(release, decision)

    def _is_recently_promoted(self, release: Release) -> bool:
        if release.previous is None or release.promoted is None:
            return False
        return utc_now() < release.promoted + timedelta(seconds=self._rules.watch_s)

    def _decide(self, release: Release, since: dict[str, VersionCounts], samples: Samples) -> RolloutDecision:
        if release.challenger is None:
            return watch(since[release.champion], self._before[str(release.previous)], self._rules)
        age_s = time.monotonic() - self._began
        if (reason := unloadable(release, samples, age_s, self._rules)) is not None:
            return RolloutDecision("rollback", reason)
        accuracy = self._accuracy(age_s)
        decision = decide(
            release, since[release.challenger], since[release.champion], accuracy or {}, age_s, self._rules
        )
        if accuracy is None and decision.step != "rollback":
            return RolloutDecision("wait", "it goes no further before it is known what users said of it")
        return decision

    def _accuracy(self, age_s: float) -> dict[str, tuple[int, int]] | None:
        """What users said in the last `age_s` seconds; None when the store does not answer."""
        try:
            return self._store.feedback.live_accuracy(self._task, utc_now() - timedelta(seconds=age_s))
        except StoreError as error:
            log.warning("%s: the live accuracy is not known: %s", self._task, error)
            return None

    def _move(self, release: Release, decision: RolloutDecision) -> None:
        try:
            if decision.step == "promote":
                self._rollout.promote(release.challenger, decision.reason, release)
            elif decision.step == "canary":
                self._rollout.challenge(
                    str(release.challenger), "canary", self._rules.canary_fraction, decision.reason, release
                )
            else:
                self._rollout.rollback(decision.reason, expected=release)
        except ReleaseChanged:  # by an operator, a moment ago: the next step looks at what there is then
            log.warning("%s: no %s: the release was moved meanwhile", self._task, decision.step)
        else:
            self._metrics.move(self._task, decision.step)
