"""Promotes a challenger or rolls it back, and reverts a promotion whose answers fail."""

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
    decide,
    decide_promoted,
    load_failure,
)
from serve.controller.workers import ACTOR
from serve.metrics import LoopMetrics, collect, controller
from serve.metrics.snapshot import samples_of

log = logging.getLogger("flywheel.controller")

Accuracy = dict[str, tuple[int, int]]
"""by version: (labels from users that are its own, all labels)"""


class RolloutReconciler:
    """Changes one task's release on its versions' metrics and user feedback. Can roll back while the store is down.

    With `rollout.automatic` off, it only sets the gauges of what it compares.
    """

    def __init__(self, task: str, config: Config, store: Store, metrics: LoopMetrics):
        self._task = task
        self._home = config.home
        self._rules = config.rollout
        self._store = store
        self._metrics = metrics
        self._rollout = Rollout(config.home, store, task, ACTOR)
        self._watched: Release | None = None
        self._watched_since = 0.0
        """time.monotonic when `_watched` was first seen and `_counts_at_start` was taken"""
        self._counts_at_start: dict[str, VersionCounts] = {}

    def step(self) -> None:
        """Decide on the current release and apply the decision. Raises ReleaseError when there is no readable one."""
        release = read_release(self._home, self._task)
        if release.challenger is None:
            for metric in controller.CANARY:
                self._metrics.set(metric, self._task, None)
            if not (self._rules.automatic and self._is_recently_promoted(release)):
                self._watched = None
                return
        samples = samples_of(collect())
        versions = [*release.versions, *([release.previous] if release.previous else [])]
        counts = {version: VersionCounts.of(samples, self._task, version) for version in versions}
        if self._watched != release:
            self._watched, self._watched_since, self._counts_at_start = release, time.monotonic(), counts
            return
        since = {version: count.since(self._counts_at_start[version]) for version, count in counts.items()}
        decision = self._decide(release, since, samples)
        if decision.step != "wait" and self._rules.automatic:
            self._move(release, decision)

    def _is_recently_promoted(self, release: Release) -> bool:
        if release.previous is None or release.promoted is None:
            return False
        return utc_now() < release.promoted + timedelta(seconds=self._rules.watch_s)

    def _decide(self, release: Release, since: dict[str, VersionCounts], samples: Samples) -> RolloutDecision:
        if release.challenger is None:
            return decide_promoted(since[release.champion], self._counts_at_start[str(release.previous)], self._rules)
        age_s = time.monotonic() - self._watched_since
        if (reason := load_failure(release, samples, age_s, self._rules)) is not None:
            return RolloutDecision("rollback", reason)
        accuracy = self._accuracy(age_s)
        self._observe(release, since, accuracy or {})
        decision = decide(
            release, since[release.challenger], since[release.champion], accuracy or {}, age_s, self._rules
        )
        if accuracy is None and decision.step != "rollback":
            return RolloutDecision("wait", "user feedback is not available, so it goes no further")
        return decision

    def _accuracy(self, age_s: float) -> Accuracy | None:
        """Live accuracy by version over the last `age_s` seconds; None when the store is unavailable."""
        try:
            return self._store.feedback.live_accuracy(self._task, utc_now() - timedelta(seconds=age_s))
        except StoreError as error:
            log.warning("%s: the live accuracy is unavailable: %s", self._task, error)
            return None

    def _observe(self, release: Release, since: dict[str, VersionCounts], accuracy: Accuracy) -> None:
        """Set the gauges of what is compared, by role."""
        roles = {"champion": release.champion, "challenger": str(release.challenger)}
        counts = {(role,): since[version] for role, version in roles.items()}
        if release.mode == "shadow":
            counts["challenger",] = counts["challenger",].in_shadow()
        judged = {(role,): accuracy[version] for role, version in roles.items() if accuracy.get(version, (0, 0))[1]}
        for metric, values in (
            (controller.CANARY_REQUESTS, {role: count.answers for role, count in counts.items()}),
            (controller.CANARY_ERRORS, {role: count.error_rate for role, count in counts.items()}),
            (controller.CANARY_LATENCY, {role: count.mean_s for role, count in counts.items() if count.texts}),
            (controller.CANARY_ACCURACY, {role: right / total for role, (right, total) in judged.items()}),
        ):
            self._metrics.set(metric, self._task, values)

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
        except ReleaseChanged:  # by an operator, a moment ago; the next step starts from the new release
            log.warning("%s: no %s: the release was changed meanwhile", self._task, decision.step)
