"""The value of a ranking policy, estimated from rankings that other policies showed.

The value is the mean number of chosen items an answer, an item at position k counting 1 / log2(k + 1), as in DCG. Each
item of a logged ranking has the propensity with which it was drawn, given the items above it. Its probability under
the policy to be judged, over that propensity, multiplied over positions 1 to k, is the importance weight of what
happened at position k. That is right whatever the user's choice there depends on, as long as it is nothing below
(the cascade of McInerney et al., 2020, https://doi.org/10.1145/3394486.3403229).

- SNIPS: at each position the weighted mean of the gains, divided by the sum of the weights (Swaminathan and Joachims,
  2015, https://proceedings.neurips.cc/paper/2015/hash/39027dfad5138c9ca0c474d71db915c3-Abstract.html).
- Doubly robust: a model's expectation of the gain under the policy to be judged, and the weighted mean of the model's
  errors on the log (Dudik et al., 2014, https://doi.org/10.1214/14-STS500; for rankings, Kiyohara et al., 2022,
  https://doi.org/10.1145/3488560.3498380). Right when either the propensities or the model are. The model is fitted for
  one half of the users on the other half.

Intervals resample users, whose answers are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from models.evaluation.significance import RESAMPLES, bootstrap

FloatArray = NDArray[np.float64]

MIN_ANSWERS, MIN_USERS = 100, 20
MIN_EFFECTIVE = 50.0
"""answers that as many of the judged policy's own would have to be for an estimate"""
_LEVEL = 0.95


class TooFewError(Exception):
    """Raised when a log cannot tell the value of a policy; the message says why, and what to do."""


@dataclass(frozen=True)
class JudgedRanking:
    """One logged answer, read as the policy to be judged would have given it.

    - `user`: whose answer it is.
    - `chosen`: (positions,), whether the user chose the item that was shown there.
    - `propensities`: (positions,), with which the items were drawn when the answer was given.
    - `order`: (positions,), the numbers of these items among the candidates.
    - `logits`: (candidates,), of the version to be judged.
    - `probabilities`: (positions, candidates), with which it would have drawn each, given the items above.
    """

    user: str
    chosen: NDArray[np.bool_]
    propensities: FloatArray
    order: NDArray[np.intp]
    logits: FloatArray
    probabilities: FloatArray


@dataclass(frozen=True)
class Estimate:
    """A value with its interval of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PolicyValue:
    """What a log says about a policy. Values are discounted chosen items an answer.

    - `logged`: the value of the policies that gave the answers.
    - `snips`, `doubly_robust`: that of the policy to be judged.
    - `difference`: `doubly_robust` less `logged`, on the same users.
    - `effective`: (positions,), as many answers of the judged policy itself would tell as much about that position.
    """

    answers: int
    users: int
    chosen: int
    logged: Estimate
    snips: Estimate
    doubly_robust: Estimate
    difference: Estimate
    effective: tuple[float, ...]


def estimate(rankings: Sequence[JudgedRanking], positions: int, resamples: int = RESAMPLES) -> PolicyValue:
    """The value of a policy over the first `positions` of each answer. Raises TooFewError."""
    _check_number(len(rankings), len({ranking.user for ranking in rankings}))
    sums = _Sums.of(rankings, positions)
    _check(sums, positions)
    return PolicyValue(
        answers=len(rankings),
        users=sums.users,
        chosen=int(sums.chosen.sum()),
        logged=sums.estimate(_Totals.logged, resamples),
        snips=sums.estimate(_Totals.snips, resamples),
        doubly_robust=sums.estimate(_Totals.doubly_robust, resamples),
        difference=sums.estimate(lambda totals: totals.doubly_robust() - totals.logged(), resamples),
        effective=tuple(sums.effective.tolist()),
    )


def discounts(positions: int) -> FloatArray:
    """(positions,): what an item chosen at each position counts."""
    counts: FloatArray = 1.0 / np.log2(np.arange(positions) + 2.0)
    return counts


class _Totals:
    """Sums over answers, each (positions,): enough for every estimate, and linear in how often a user was drawn.

    In the order of `_PARTS`: answers; gains; weights; weighted gains; weighted errors of the model; weights before the
    position; the model's expectations weighted by these.
    """

    _PARTS = 7

    def __init__(self, sums: FloatArray):
        (
            self._answers, self._gains, self._weights, self._weighted_gains, self._weighted_errors,
            self._weights_before, self._weighted_expectations,
        ) = sums.reshape(self._PARTS, -1)  # fmt: skip

    def logged(self) -> float:
        return float((self._gains / self._answers).sum())

    def snips(self) -> float:
        return float((self._weighted_gains / self._weights).sum())

    def doubly_robust(self) -> float:
        expected = self._weighted_expectations / self._weights_before
        return float((expected + self._weighted_errors / self._weights).sum())


@dataclass(frozen=True)
class _Sums:
    """`_Totals` of each user, (users, parts * positions), and what is told beside an estimate."""

    of_users: FloatArray
    answers: int
    chosen: NDArray[np.bool_]
    effective: FloatArray

    @property
    def users(self) -> int:
        return len(self.of_users)

    @classmethod
    def of(cls, rankings: Sequence[JudgedRanking], positions: int) -> Self:
        """Longer answers are cut; in shorter ones nothing is gained at the positions that they lack."""
        names, user = np.unique([ranking.user for ranking in rankings], return_inverse=True)
        chosen = np.zeros((len(rankings), positions), np.bool_)
        ratios = np.ones(chosen.shape)
        for i, ranking in enumerate(rankings):
            length = min(positions, len(ranking.order))
            rows = np.arange(length)
            chosen[i, :length] = ranking.chosen[:length]
            judged = ranking.probabilities[rows, ranking.order[:length]]
            ratios[i, :length] = judged / ranking.propensities[:length]
        weights = np.cumprod(ratios, axis=1)
        before = np.hstack([np.ones((len(rankings), 1)), weights[:, :-1]])
        shown, expected = _model_of_gains(rankings, user, chosen)
        gains = chosen * discounts(positions)
        parts = [
            np.ones(gains.shape), gains, weights, weights * gains, weights * (gains - shown), before, before * expected,
        ]  # fmt: skip
        of_users = np.zeros((len(names), len(parts) * positions))
        np.add.at(of_users, user, np.hstack(parts))
        with np.errstate(invalid="ignore"):
            effective = np.nan_to_num(weights.sum(0) ** 2 / (weights**2).sum(0))
        return cls(of_users, len(rankings), chosen, effective)

    def estimate(self, value: Callable[[_Totals], float], resamples: int) -> Estimate:
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw of users whose weights are all 0 is left out
            drawn = bootstrap(lambda counts: value(_Totals(counts @ self.of_users)), self.users, resamples)
        low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return Estimate(value(_Totals(self.of_users.sum(0))), float(low), float(high))


def _check_number(answers: int, users: int) -> None:
    if answers < MIN_ANSWERS or users < MIN_USERS:
        raise TooFewError(
            f"{answers} answers to {users} users have propensities; an estimate needs {MIN_ANSWERS} answers to "
            f'{MIN_USERS} users. Send requests with "explore" above 0, and feedback on what users choose.'
        )


def _check(sums: _Sums, positions: int) -> None:
    if not sums.chosen.any():
        raise TooFewError(
            f"no user chose one of the first {positions} items of the {sums.answers} answers. Send feedback on what "
            "users choose."
        )
    if (least := float(sums.effective.min())) < MIN_EFFECTIVE:
        position = int(sums.effective.argmin()) + 1
        raise TooFewError(
            f"the {sums.answers} answers tell as much about position {position} as {least:.0f} of the version's own "
            f"would, and an estimate needs {MIN_EFFECTIVE:.0f}: it ranks too differently from what was shown. Judge "
            "fewer positions, wait for more answers, or explore more."
        )


def _model_of_gains(
    rankings: Sequence[JudgedRanking], user: NDArray[np.intp], chosen: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """(answers, positions) twice: the modelled gain of the item shown, and its mean under the policy to be judged.

    The model of a half of the users is fitted on the other half.
    """
    half = np.random.default_rng(0).permutation(user.max() + 1)[user] % 2
    shown, expected = np.zeros(chosen.shape), np.zeros(chosen.shape)
    for part in (0, 1):
        model = _GainModel.fit([rankings[i] for i in np.flatnonzero(half != part).tolist()], chosen.shape[1])
        for i in np.flatnonzero(half == part).tolist():
            ranking = rankings[i]
            length = min(chosen.shape[1], len(ranking.order))
            gains = model.gains(ranking.logits)[:length]
            shown[i, :length] = gains[np.arange(length), ranking.order[:length]]
            expected[i, :length] = (gains * ranking.probabilities[:length]).sum(1)
    return shown, expected


class _GainModel:
    """A logistic regression of whether an item is chosen, on its logit and its position."""

    def __init__(self, slope: float, intercepts: FloatArray):
        self._slope, self._intercepts = slope, intercepts

    @classmethod
    def fit(cls, rankings: Sequence[JudgedRanking], positions: int) -> Self:
        places, logits, chosen = [], [], []
        for ranking in rankings:
            length = min(positions, len(ranking.order))
            places.append(np.arange(length))
            logits.append(ranking.logits[ranking.order[:length]])
            chosen.append(ranking.chosen[:length])
        rows = np.concatenate(places) if places else np.zeros(0, np.intp)
        target = np.concatenate(chosen) if chosen else np.zeros(0, np.bool_)
        if target.all() or not target.any():  # nothing to learn; the estimate is then SNIPS
            return cls(0.0, np.full(positions, -np.inf))
        columns = np.column_stack([np.concatenate(logits), np.eye(positions)[rows]])
        fitted = LogisticRegression().fit(columns, target)
        slope, *places_ = fitted.coef_[0]
        return cls(float(slope), np.array(places_) + fitted.intercept_[0])

    def gains(self, logits: FloatArray) -> FloatArray:
        """(positions, candidates): the discounted probability that each is chosen at each position."""
        odds = self._intercepts[:, None] + self._slope * logits
        probabilities: FloatArray = discounts(len(self._intercepts))[:, None] / (1.0 + np.exp(-odds))
        return probabilities
