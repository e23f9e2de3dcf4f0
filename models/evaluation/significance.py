"""Two models on the same examples: tests and intervals for the difference, each with its source.

A candidate wins an example that it has right and the champion wrong, and loses one the other way round. Examples that
both have right, or both wrong, do not tell which is better; they only make the difference smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

RESAMPLES = 1000
_SEED = 0  # fixed, so that the gate gives the same answer for the same pair of models


@lru_cache(4096)  # labels often have the same small counts
def mcnemar_p_value(wins: int, losses: int) -> float:
    """The one-sided p-value of `wins` or more among `wins + losses`, under the hypothesis that both are equally good.

    McNemar's test, exact (McNemar, 1947, https://doi.org/10.1007/BF02295996). Swap the arguments to ask whether the
    candidate is worse.
    """
    return float(binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue) if wins + losses else 1.0


def difference_lower_bound(wins: int, losses: int, total: int, significance: float) -> float:
    """The lower bound of the accuracy difference, candidate minus champion (-1 to 1), at confidence 1 - `significance`.

    Tango's score interval for paired proportions (Tango, 1998, Statistics in Medicine 17, 891). Unlike Wald's, it does
    not have zero width when the models agree on everything: 30 examples cannot rule out a loss of 2 points.
    """
    z = float(norm.isf(significance))

    def above(difference: float) -> float:
        return _score(wins, losses, total, difference) - z

    edge = 1e-9
    return float(brentq(above, edge - 1, (wins - losses) / total - edge)) if losses < total else -1.0


def _score(wins: int, losses: int, total: int, difference: float) -> float:
    """Tango's score statistic: observed minus hypothesized `difference`, in standard errors."""
    a = 2 * total
    b = (2 * total - wins + losses) * difference - wins - losses
    c = -losses * difference * (1 - difference)
    losing = (np.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # most likely share of losses under `difference`
    variance = total * (2 * losing + difference * (1 - difference))
    return float((wins - losses - total * difference) / np.sqrt(max(variance, 1e-12)))


@lru_cache(4096)
def recall_loss_p_value(wins: int, losses: int, total: int, loss: float) -> float:
    """The p-value of so many net losses among a label's `total` examples if its recall fell by `loss` (0 to 1) or less.

    Exact, so valid for a handful of examples: the net losses against a binomial of `total` and `loss`.
    """
    net = losses - wins
    return float(binomtest(net, total, loss, alternative="greater").pvalue) if net > 0 else 1.0


@lru_cache(4096)
def share_p_value(count: int, total: int, share: float) -> float:
    """The one-sided p-value of `count` or more among `total` if the true share were `share` (0 to 1). Exact."""
    return float(binomtest(count, total, share, alternative="greater").pvalue) if total else 1.0


def sign_test_p_value(values: NDArray[np.float64], bound: float) -> float:
    """The one-sided p-value of so many `values` above `bound` if it were their median (sign test)."""
    return mcnemar_p_value(int((values > bound).sum()), int((values <= bound).sum()))


def bootstrap(
    statistic: Callable[[NDArray[Any]], float], units: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """`statistic` of each resample, (resamples,); it is called with how often each unit was drawn, integers (units,).

    Units must be independent: texts for a classifier, users for a ranker. Both models are measured on the same draw,
    which makes it paired (Efron and Tibshirani, 1993, chapter 8). Draws on which the statistic is not
    defined (NaN) are left out.
    """
    rng = np.random.default_rng(_SEED)
    values = np.array(
        [statistic(np.bincount(rng.integers(0, units, units), minlength=units)) for _ in range(resamples)]
    )
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite
