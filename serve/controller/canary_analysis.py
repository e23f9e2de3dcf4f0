"""Canary analysis: what live traffic says of a challenger, and what follows: wait, go on, or roll back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from models.releases.release import Release
from serve.config import RolloutConfig

_CERTAIN_Z = 2.33  # one-sided, 1 %
_EARLY_ERRORS = 20  # so many errors, and every second answer one: nobody waits for more

Step = Literal["wait", "canary", "promote", "rollback"]
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""(sample name, labels) -> value, as `collected` makes it of prometheus-client's metric families"""


@dataclass(frozen=True)
class VersionCounts:
    """Counts of one version since some moment."""

    answers: float = 0.0
    errors: float = 0.0
    """500 and 504"""
    faults: float = 0.0
    """500 alone: a deadline that passes may be the load's fault"""
    texts: float = 0.0
    """that went through the model, not those that were known"""
    seconds: float = 0.0
    """of the model, for these texts: the time of an answer depends on what the cache knows of which version"""
    agree: float = 0.0
    differ: float = 0.0
    failed: float = 0.0

    def since(self, before: VersionCounts) -> VersionCounts:
        return VersionCounts(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))

    @property
    def mean_s(self) -> float:
        """Seconds of the model a text."""
        return self.seconds / self.texts if self.texts else 0.0

    @property
    def error_rate(self) -> float:
        return self.errors / self.answers if self.answers else 0.0

    @classmethod
    def of(cls, samples: Samples, task: str, version: str) -> Self:
        """From the collectors' samples, summed over processes, endpoints and so on."""
        totals = dict.fromkeys((f.name for f in fields(cls)), 0.0)
        for (name, labels), value in samples.items():
            label = dict(labels)
            if label.get("task") != task or label.get("version") != version:
                continue
            if name == "flywheel_requests_total" and label["endpoint"] in ("predict", "infer"):
                totals["answers"] += value
                # What a busy or starting server refuses says nothing about a version.
                totals["errors"] += value if label["status"] in ("500", "504") else 0.0
                totals["faults"] += value if label["status"] == "500" else 0.0
            elif name == "flywheel_texts_total":
                totals["texts"] += value
            elif name == "flywheel_stage_seconds_sum" and label["stage"] == "infer":
                totals["seconds"] += value
            elif name == "flywheel_shadow_texts_total" and label["result"] in totals:
                totals[label["result"]] += value
        return cls(**totals)


@dataclass(frozen=True)
class RolloutDecision:
    """The next step of a release, and why, in a sentence for the audit log."""

    step: Step
    reason: str


def unloadable(
    release: Release,
    samples: Samples,
    age_s: float,
    rules: RolloutConfig,
) -> str | None:
    """A sentence when no replica could load the challenger, though one has the champion: it would never answer."""
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
    """What to do with the release's challenger. Counts are since it began; `accuracy` is (right, given) by version."""
    assert release.challenger is not None
    seen = challenger.answers if release.mode == "canary" else challenger.agree + challenger.differ + challenger.failed
    bad = challenger.errors if release.mode == "canary" else challenger.failed
    if bad >= _EARLY_ERRORS and bad > seen / 2:
        return RolloutDecision("rollback", f"{bad:.0f} of its first {seen:.0f} answers failed")
    if seen < rules.min_answers or age_s < rules.min_duration_s:
        return RolloutDecision("wait", f"{seen:.0f} answers in {age_s:.0f} s are too few to judge")
    rate = bad / seen
    if rate > rules.max_error_rate and rate > champion.error_rate:
        return RolloutDecision(
            "rollback", f"{rate:.1%} of {seen:.0f} answers failed, of the champion's {champion.error_rate:.1%}"
        )
    if (worse := _less_accurate(release, accuracy, rules.min_feedback)) is not None:
        return RolloutDecision("rollback", worse)
    if release.mode == "shadow":
        share = challenger.differ / seen
        if share > rules.max_disagreement:
            return RolloutDecision("rollback", f"{share:.1%} of {seen:.0f} answers differ from the champion's")
        return RolloutDecision("canary", f"{share:.1%} of {seen:.0f} unseen answers differ, {rate:.1%} failed")
    ratio = challenger.mean_s / champion.mean_s if champion.mean_s else 1.0
    if ratio > rules.max_latency_ratio:
        return RolloutDecision("rollback", f"a text takes it {ratio:.2f} times as long as the champion")
    return RolloutDecision(
        "promote", f"{rate:.1%} of {seen:.0f} answers failed, a text takes it {ratio:.2f} times as long as the champion"
    )


def watch(champion: VersionCounts, before: VersionCounts, rules: RolloutConfig) -> RolloutDecision:
    """What to do with a champion that was promoted a while ago; `before` is the version that it replaced.

    Only its own failures count: latency, accuracy and agreement are compared while both versions answer (0014).
    """
    share, usual = (counts.faults / counts.answers if counts.answers else 0.0 for counts in (champion, before))
    many = champion.faults >= _EARLY_ERRORS and share > 0.5
    if many or (champion.answers >= rules.min_answers and share > rules.max_error_rate and share > usual):
        return RolloutDecision(
            "rollback", f"{share:.1%} of {champion.answers:.0f} answers failed, and {usual:.1%} before it"
        )
    return RolloutDecision("wait", f"{share:.1%} of {champion.answers:.0f} answers failed")


def _less_accurate(release: Release, accuracy: Mapping[str, tuple[int, int]], least: int) -> str | None:
    """A sentence when users corrected the challenger more often than the champion, beyond chance (two proportions)."""
    right, given = accuracy.get(str(release.challenger), (0, 0))
    usual, asked = accuracy.get(release.champion, (0, 0))
    if given < least or asked < least:
        return None
    pooled = (right + usual) / (given + asked)
    error = math.sqrt(pooled * (1 - pooled) * (1 / given + 1 / asked))
    difference = usual / asked - right / given
    if error == 0 or difference / error < _CERTAIN_Z:
        return None
    return f"users confirmed {right} of {given} of its answers, and {usual} of {asked} of the champion's"


def collected(families: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """prometheus-client's metric families as one mapping of (sample name, labels) to value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
