"""Drift of inputs, of confidence and of the share of early answers, by tests of two samples.

With enough samples every difference is significant. So drift needs both a p-value below `DriftLimits.p_value` and a
distance of at least `DriftLimits.distance`, which is worth a retraining.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ks_2samp, norm

from models.feedback.types import LoggedPrediction
from models.tasks.base import Strict

WINDOW = 1000
"""texts that `drift_in_log` compares with as many later ones"""


class DriftLimits(Strict):
    """When a difference counts as drift. `distance` is a Kolmogorov-Smirnov statistic, 0 (same) to 1 (disjoint).

    That of two shares is their difference.
    """

    samples: int = 100
    """with fewer on either side, no drift is reported"""
    p_value: float = 0.01
    distance: float = 0.12


@dataclass(frozen=True, slots=True)
class Drift:
    """The result of one test."""

    statistic: float
    """the distance, as in DriftLimits"""
    p_value: float
    drifted: bool
    sentence: str
    bound: float = DriftLimits().distance
    """the distance from which on it counts as drift"""


def drift_of_lengths(reference: ArrayLike, now: ArrayLike, limits: DriftLimits | None = None) -> Drift:
    """Whether the distribution of text lengths differs from the reference's; both are (texts,).

    Raises ValueError for another shape and for numbers that are not finite.
    """
    return _drift(_numbers(reference), _numbers(now), limits or DriftLimits(), "Input lengths")


def drift_of_confidence(reference: ArrayLike, now: ArrayLike, limits: DriftLimits | None = None) -> Drift:
    """Whether the distribution of confidence scores differs from the reference's; both are (answers,).

    Raises ValueError for another shape and for numbers that are not finite.
    """
    before, after, limits = _numbers(reference), _numbers(now), limits or DriftLimits()
    drift = _drift(before, after, limits, "Confidence")
    if min(len(before), len(after)) < limits.samples:
        return drift
    medians = f" The median went from {np.median(before):.2f} to {np.median(after):.2f}."
    return replace(drift, sentence=drift.sentence + medians)


def drift_of_early_answers(reference: ArrayLike, now: ArrayLike, limits: DriftLimits | None = None) -> Drift:
    """Whether the share of early answers is lower than the reference's; both are (answers,), true for an early one.

    The linear reader answers early what is like its training texts, so fewer early answers mean other texts. A
    one-sided z-test of two proportions. Raises ValueError for another shape and for numbers that are not finite.
    """
    before, after, limits = _numbers(reference), _numbers(now), limits or DriftLimits()
    if (few := _too_few(before, after, limits)) is not None:
        return few
    pooled = float(np.concatenate((before, after)).mean())
    fall = max(0.0, float(before.mean() - after.mean()))
    error = math.sqrt(pooled * (1 - pooled) * (1 / len(before) + 1 / len(after)))
    drift = _conclusion("Early answers", fall, float(norm.sf(fall / error)) if error else 1.0, before, after, limits)
    shares = f" Their share went from {before.mean():.0%} to {after.mean():.0%}."
    return replace(drift, sentence=drift.sentence + shares)


def drift_in_log(rows: Sequence[LoggedPrediction], champion: str) -> dict[str, Drift]:
    """The tests of a classifier's logged predictions, oldest first, by name; without those that have too few texts.

    Its oldest texts are compared with its newest. How sure an answer is depends on the version too, and on whether its
    linear reader may answer alone. So only the champion's answers are compared, those made as its newest one was.
    """
    answers = [answer for row in rows if row.version == champion for answer in row.output]
    answers = [answer for answer in answers if ("early" in answer) == ("early" in answers[-1])]
    tests = {
        "lengths": (drift_of_lengths, [len(text) for row in rows for text in row.input]),
        "confidence": (drift_of_confidence, [answer["score"] for answer in answers]),
        "early_answers": (drift_of_early_answers, [answer["early"] for answer in answers if "early" in answer]),
    }
    return {
        name: test(values[:WINDOW], values[-WINDOW:])
        for name, (test, values) in tests.items()
        if len(values) >= 2 * WINDOW
    }


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    numbers: NDArray[Any] = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"one finite number a text or answer is expected, not an array of shape {numbers.shape}")
    return numbers


def _drift(before: NDArray[np.float64], after: NDArray[np.float64], limits: DriftLimits, name: str) -> Drift:
    if (few := _too_few(before, after, limits)) is not None:
        return few
    test = ks_2samp(before, after, method="asymp")
    return _conclusion(name, float(test.statistic), float(test.pvalue), before, after, limits)


def _too_few(before: NDArray[np.float64], after: NDArray[np.float64], limits: DriftLimits) -> Drift | None:
    if min(len(before), len(after)) >= limits.samples:
        return None
    counts = f"{len(before):,} of reference and {len(after):,} now, {limits.samples:,} of each are needed"
    return Drift(0.0, 1.0, False, f"Too few samples to tell: {counts}.")


def _conclusion(
    name: str,
    statistic: float,
    p_value: float,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    limits: DriftLimits,
) -> Drift:
    significant, large = p_value < limits.p_value, statistic >= limits.distance
    conclusion = {
        (True, True): "drift",
        (True, False): "a difference too small to matter",
        (False, True): "a difference that may be chance",
        (False, False): "no drift",
    }[significant, large]
    measured = f"distance {statistic:.3f} of {limits.distance:g}, p {p_value:.2g} of {limits.p_value:g}"
    sentence = f"{name}: {conclusion} ({measured}; {len(before):,} then, {len(after):,} now)."
    return Drift(statistic, p_value, significant and large, sentence, limits.distance)
