"""Drift of inputs and of confidence, by two-sample Kolmogorov-Smirnov tests.

With enough samples every difference is significant. So drift needs both a p-value below `DriftLimits.p_value` and a
distance of at least `DriftLimits.distance`, which is worth a retraining.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ks_2samp

from models.tasks.base import Strict


class DriftLimits(Strict):
    """When a difference counts as drift. `distance` is a Kolmogorov-Smirnov statistic, 0 (same) to 1 (disjoint)."""

    samples: int = 100
    """with fewer on either side, no drift is reported"""
    p_value: float = 0.01
    distance: float = 0.12


@dataclass(frozen=True, slots=True)
class Drift:
    """The result of one test."""

    statistic: float
    """the Kolmogorov-Smirnov distance"""
    p_value: float
    drifted: bool
    sentence: str


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


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    numbers: NDArray[Any] = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"one finite number a text or answer is expected, not an array of shape {numbers.shape}")
    return numbers


def _drift(before: NDArray[np.float64], after: NDArray[np.float64], limits: DriftLimits, name: str) -> Drift:
    if min(len(before), len(after)) < limits.samples:
        counts = f"{len(before):,} of reference and {len(after):,} now, {limits.samples:,} of each are needed"
        return Drift(0.0, 1.0, False, f"Too few samples to tell: {counts}.")
    test = ks_2samp(before, after, method="asymp")
    statistic, p_value = float(test.statistic), float(test.pvalue)
    significant, large = p_value < limits.p_value, statistic >= limits.distance
    conclusion = {
        (True, True): "drift",
        (True, False): "a difference too small to matter",
        (False, True): "a difference that may be chance",
        (False, False): "no drift",
    }[significant, large]
    measured = f"distance {statistic:.3f} of {limits.distance:g}, p {p_value:.2g} of {limits.p_value:g}"
    sentence = f"{name}: {conclusion} ({measured}; {len(before):,} then, {len(after):,} now)."
    return Drift(statistic, p_value, significant and large, sentence)
