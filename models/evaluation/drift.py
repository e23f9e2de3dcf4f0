"""Has what the model reads, or how sure it is of it, changed? Two-sample tests that also ask whether it matters.

With enough samples every difference is significant. So a drift needs both: a p-value below `Limits.p_value`, and a
distance that is large enough to be worth a training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ks_2samp

from models.tasks.base import Strict


class Limits(Strict):
    """When a difference is a drift. `distance` is a Kolmogorov-Smirnov statistic, from 0 (same) to 1 (apart)."""

    samples: int = 100
    """fewer on either side decide nothing"""
    p_value: float = 0.01
    distance: float = 0.12


@dataclass(frozen=True, slots=True)
class Drift:
    statistic: float
    """the Kolmogorov-Smirnov distance"""
    p_value: float
    drifted: bool
    sentence: str


def drift_of_lengths(reference: ArrayLike, now: ArrayLike, limits: Limits | None = None) -> Drift:
    """Whether texts come from elsewhere than those of the reference, by their lengths, both of shape (texts,).

    Raises ValueError for another shape and for numbers that are not finite.
    """
    return _drift(_numbers(reference), _numbers(now), limits or Limits(), "Input lengths")


def drift_of_confidence(reference: ArrayLike, now: ArrayLike, limits: Limits | None = None) -> Drift:
    """Whether the scores of given answers, of shape (answers,), are distributed otherwise than the reference's.

    Raises ValueError for another shape and for numbers that are not finite.
    """
    then, new, limits = _numbers(reference), _numbers(now), limits or Limits()
    drift = _drift(then, new, limits, "Confidence")
    if min(len(then), len(new)) < limits.samples:
        return drift
    medians = f" The median went from {np.median(then):.2f} to {np.median(new):.2f}."
    return replace(drift, sentence=drift.sentence + medians)


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    numbers: NDArray[Any] = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"one finite number a text or answer is expected, not an array of shape {numbers.shape}")
    return numbers


def _drift(then: NDArray[np.float64], new: NDArray[np.float64], limits: Limits, what: str) -> Drift:
    if min(len(then), len(new)) < limits.samples:
        counts = f"{len(then):,} of reference and {len(new):,} now, {limits.samples:,} of each are needed"
        return Drift(0.0, 1.0, False, f"Too few samples to tell: {counts}.")
    test = ks_2samp(then, new, method="asymp")
    statistic, p_value = float(test.statistic), float(test.pvalue)
    significant, large = p_value < limits.p_value, statistic >= limits.distance
    verdict = {
        (True, True): "drift",
        (True, False): "a difference too small to matter",
        (False, True): "a difference that may be chance",
        (False, False): "no drift",
    }[significant, large]
    measured = f"distance {statistic:.3f} of {limits.distance:g}, p {p_value:.2g} of {limits.p_value:g}"
    sentence = f"{what}: {verdict} ({measured}; {len(then):,} then, {len(new):,} now)."
    return Drift(statistic, p_value, significant and large, sentence)
