"""Canary analysis: decides on live metrics of challenger and champion whether to wait, go on or roll back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, Self

from models.releases.release import Release
from serve.config import RolloutConfig

_CERTAIN_Z = 2.33  # one-sided, 1 %
_MIN_TEXTS = 20  # of each version, run by its encoder; with fewer, their times are not compared
_EARLY_ERRORS = 20  # with this many errors, in more than half of the answers, roll back before min_answers

RolloutStep = Literal["wait", "canary", "promote", "rollback"]
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""(sample name, labels) -> value, as serve.metrics.snapshot.samples_of returns it"""


@dataclass(frozen=True)
class VersionCounts:
    """Counters of one version, in total or since a moment (`since`)."""

    answers: float = 0.0
    errors: float = 0.0
    """500 and 504"""
    faults: float = 0.0
    """500 alone: the load may be the cause of a missed deadline"""
    texts: float = 0.0
    """texts that the encoder ran, without cache hits and early answers"""
    seconds: float = 0.0
    """model time for these texts; response times would depend on each version's cache hits and early answers"""
    agree: float = 0.0
    differ: float = 0.0
    failed: float = 0.0

    def since(self, before: VersionCounts) -> VersionCounts:
        return VersionCounts(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))

    def in_shadow(self) -> Self:
        """The counts with the answers that a version gave unseen by clients, and its failures there."""
        return replace(self, answers=self.agree + self.differ + self.failed, errors=self.failed)

    @property
    def mean_s(self) -> float:
        """Model time per text in seconds."""
        return self.seconds / self.texts if self.texts else 0.0

    @property
    def error_rate(self) -> float:
        return self.errors / self.answers if self.answers else 0.0

    @property
    def fault_rate(self) -> float:
        return self.faults / self.answers if self.answers else 0.0

    @property
    def late_rate(self) -> float:
        """Missed deadlines over what waited for the encoder: early answers and cache hits miss none."""
        late = self.errors - self.faults
        return late / (late + self.texts) if late else 0.0

    @classmethod
    def of(cls, samples: Samples, task: str, version: str) -> Self:
        """The counters of `version` in `samples`, summed over the other labels."""
        totals = dict.fromkeys((f.name for f in fields(cls)), 0.0)
        for (name, labels), value in samples.items():
            label = dict(labels)
            if label.get("task") != task or label.get("version") != version:
                continue
            if name == "flywheel_requests_total" and label["endpoint"] in ("predict", "infer"):
                totals["answers"] += value
                # Refusals of a busy or starting server (503) say nothing about a version.
                totals["errors"] += value if label["code"] in ("500", "504") else 0.0
                totals["faults"] += value if label["code"] == "500" else 0.0
            elif name == "flywheel_batch_size_sum":
                totals["texts"] += value
            elif name == "flywheel_stage_seconds_sum" and label["stage"] == "infer":
                totals["seconds"] += value
            elif name == "flywheel_shadow_texts_total" and label["result"] in totals:
                totals[label["result"]] += value
        return cls(**totals)


@dataclass(frozen=True)
class RolloutDecision:
    """The next step of a release, and its reason as a sentence for the audit log."""

    step: RolloutStep
    reason: str


def load_failure(
    release: Release,
    samples: Samples,
    age_s: float,
    rules: RolloutConfig,
) -> str | None:
    """The reason, when no replica could load the challenger although one has the champion; else None."""
    replicas = dict.fromkeys(release.versions, 0.0)
    for (name, labels), value in samples.items():
        label = dict(labels)
        if name == "flywheel_loaded_replicas" and label["task"] == release.task and label["version"] in replicas:
            replicas[label["version"]] += value
    if age_s > rules.min_duration_s and replicas[release.champion] and not replicas[str(release.challenger)]:
        return f"no replica could load it in {age_s:.0f} s; the replicas' log says why"
    return None


def decide(
    release: Release,
    challenger: VersionCounts,
    champion: VersionCounts,
    accuracy: Mapping[str, tuple[int, int]],
    age_s: float,
    rules: RolloutConfig,
) -> RolloutDecision:
    """The next step for the release's challenger.

    The share of texts that a version answers early decides nothing: encoders are compared by the texts that they ran,
    answers by the feedback on all of them, and in shadow by their final labels.

    - `challenger`, `champion`: counts since the challenger's stage began.
    - `accuracy`: by version, the numbers of (confirmed answers, feedback).
    - `age_s`: seconds since the challenger's stage began.
    """
    assert release.challenger is not None
    answers = (
        challenger.answers if release.mode == "canary" else challenger.agree + challenger.differ + challenger.failed
    )
    failures = challenger.errors if release.mode == "canary" else challenger.failed
    if failures >= _EARLY_ERRORS and failures > answers / 2:
        return RolloutDecision("rollback", f"{failures:.0f} of its first {answers:.0f} answers failed")
    if answers < rules.min_answers or age_s < rules.min_duration_s:
        return RolloutDecision("wait", f"{answers:.0f} answers in {age_s:.0f} s are too few for a decision")
    rate = failures / answers
    if rate > rules.max_error_rate and rate > champion.error_rate and _fails_more(release, challenger, champion):
        return RolloutDecision(
            "rollback", f"{rate:.1%} of {answers:.0f} answers failed, {champion.error_rate:.1%} of the champion's"
        )
    if (worse := _less_accurate(release, accuracy, rules.min_feedback)) is not None:
        return RolloutDecision("rollback", worse)
    if release.mode == "shadow":
        share = challenger.differ / answers
        if share > rules.max_disagreement:
            return RolloutDecision("rollback", f"{share:.1%} of {answers:.0f} answers differ from the champion's")
        return RolloutDecision("canary", f"{share:.1%} of {answers:.0f} shadow answers differ, {rate:.1%} failed")
    failed = f"{rate:.1%} of {answers:.0f} answers failed"
    if min(challenger.texts, champion.texts) < _MIN_TEXTS or not champion.mean_s:
        return RolloutDecision("promote", f"{failed}, too few texts reached both encoders to compare their time")
    ratio = challenger.mean_s / champion.mean_s
    told = f"its encoder's time per text is {ratio:.2f} times the champion's"
    if ratio > rules.max_latency_ratio:
        return RolloutDecision("rollback", told)
    return RolloutDecision("promote", f"{failed}, {told}")


def _fails_more(release: Release, challenger: VersionCounts, champion: VersionCounts) -> bool:
    """Whether the challenger's errors are its own, and not those of more texts that wait for the encoder.

    Under load, a version that answers fewer texts early misses more deadlines. A failure in shadow counts as it is.
    """
    if release.mode == "shadow":
        return True
    return challenger.fault_rate > champion.fault_rate or challenger.late_rate > champion.late_rate


def decide_promoted(champion: VersionCounts, before: VersionCounts, rules: RolloutConfig) -> RolloutDecision:
    """The next step for a recently promoted champion; `before` has the counts of the version that it replaced.

    Only errors count here: latency, accuracy and agreement are compared while both versions serve (0014).
    """
    rate, rate_before = champion.fault_rate, before.fault_rate
    many = champion.faults >= _EARLY_ERRORS and rate > 0.5
    if many or (champion.answers >= rules.min_answers and rate > rules.max_error_rate and rate > rate_before):
        return RolloutDecision(
            "rollback", f"{rate:.1%} of {champion.answers:.0f} answers failed, and {rate_before:.1%} before it"
        )
    return RolloutDecision("wait", f"{rate:.1%} of {champion.answers:.0f} answers failed")


def _less_accurate(release: Release, accuracy: Mapping[str, tuple[int, int]], min_feedback: int) -> str | None:
    """The reason, when the challenger's accuracy by user feedback is significantly lower (two-proportion z-test).

    `accuracy` is as in `decide`. None when it is not, or when a version has less than `min_feedback`.
    """
    challenger_right, challenger_given = accuracy.get(str(release.challenger), (0, 0))
    champion_right, champion_given = accuracy.get(release.champion, (0, 0))
    if challenger_given < min_feedback or champion_given < min_feedback:
        return None
    pooled = (challenger_right + champion_right) / (challenger_given + champion_given)
    error = math.sqrt(pooled * (1 - pooled) * (1 / challenger_given + 1 / champion_given))
    difference = champion_right / champion_given - challenger_right / challenger_given
    if error == 0 or difference / error < _CERTAIN_Z:
        return None
    return (
        f"users confirmed {challenger_right} of {challenger_given} of its answers, "
        f"and {champion_right} of {champion_given} of the champion's"
    )
