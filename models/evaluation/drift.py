"""Has what the model reads, or how sure it is of it, changed? Two-sample tests that also ask whether it matters.

With enough samples every difference is significant. So a drift needs both: a p-value below `Limits.p_value` after
correction for the number of features, and a distance that is large enough to be worth a training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ks_2samp
from sklearn.decomposition import PCA

from models.tasks.base import Strict

_COMPONENTS = 32


class Limits(Strict):
    """When a difference is a drift. `distance` is a Kolmogorov-Smirnov statistic, from 0 (same) to 1 (apart)."""

    samples: int = 100
    """fewer on either side decide nothing"""
    p_value: float = 0.01
    distance: float = 0.12


@dataclass(frozen=True, slots=True)
class Drift:
    statistic: float
    """the Kolmogorov-Smirnov distance, the largest one where there are several features"""
    p_value: float
    """corrected for the number of features (Bonferroni)"""
    drifted: bool
    sentence: str


def drift_of_inputs(reference: ArrayLike, now: ArrayLike, limits: Limits | None = None) -> Drift:
    """Whether inputs come from elsewhere than those of the reference.

    Both are lengths of shape (texts,), or embeddings of shape (texts, dimensions), which are reduced to the reference's
    principal components and tested one by one, as Rabanser et al. (2019, https://arxiv.org/abs/1810.11953) found to
    work best among simple tests. Raises ValueError for other shapes and for numbers that are not finite.
    """
    limits = limits or Limits()
    then, new = _numbers(reference), _numbers(now)
    if then.ndim > 2 or then.shape[1:] != new.shape[1:]:
        raise ValueError(f"two arrays of one kind are expected, not of shapes {then.shape} and {new.shape}")
    if too_few := _too_few(len(then), len(new), limits):
        return too_few
    if then.ndim == 1:
        return _drift(then[:, None], new[:, None], limits, "Input lengths")
    if np.ptp(then, axis=0).any():  # principal components of a constant are not defined
        reduced = PCA(min(_COMPONENTS, *then.shape), svd_solver="full").fit(then)
        then, new = reduced.transform(then), reduced.transform(new)
    return _drift(then, new, limits, "Inputs")


def drift_of_confidence(reference: ArrayLike, now: ArrayLike, limits: Limits | None = None) -> Drift:
    """Whether the scores of given answers, of shape (answers,), are distributed otherwise than the reference's.

    Raises ValueError for another shape and for numbers that are not finite.
    """
    limits = limits or Limits()
    then, new = _numbers(reference), _numbers(now)
    if then.ndim != 1 or new.ndim != 1:
        raise ValueError(f"one score an answer is expected, not shapes {then.shape} and {new.shape}")
    if too_few := _too_few(len(then), len(new), limits):
        return too_few
    drift = _drift(then[:, None], new[:, None], limits, "Confidence")
    medians = f" The median went from {np.median(then):.2f} to {np.median(new):.2f}."
    return Drift(drift.statistic, drift.p_value, drift.drifted, drift.sentence + medians)


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    numbers: NDArray[Any] = np.asarray(values, np.float64)
    if numbers.ndim == 0 or not np.isfinite(numbers).all():
        raise ValueError("an array of finite numbers is expected")
    return numbers


def _too_few(then: int, new: int, limits: Limits) -> Drift | None:
    if min(then, new) >= limits.samples:
        return None
    sentence = f"Too few samples to tell: {then:,} of reference and {new:,} now, {limits.samples:,} of each are needed."
    return Drift(0.0, 1.0, False, sentence)


def _drift(then: NDArray[np.float64], new: NDArray[np.float64], limits: Limits, what: str) -> Drift:
    tests = [ks_2samp(then[:, at], new[:, at], method="asymp") for at in range(then.shape[1])]
    statistic = max(float(test.statistic) for test in tests)
    p_value = min(1.0, min(float(test.pvalue) for test in tests) * len(tests))
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
