"""How scored candidates become a ranking: by relevance, with diversity, and with chance of a stated propensity.

A ranking is filled from the top. At each position the utility of a candidate that is not placed yet is

    u(i) = logit(i) - diversity / (1 - diversity) * spread * max(cosine(i, j) for j placed above)

which is maximal marginal relevance (Carbonell and Goldstein, 1998, https://doi.org/10.1145/290941.291025) divided by
1 - diversity, so that neither the first position nor the temperature below depends on `diversity`. `spread` is the
standard deviation of the request's logits: similarity then counts as much for a model with small logits.

Without exploration the candidate of the greatest utility is placed. With it, the candidate is drawn with probability

    exp(u(i) / t) / sum(exp(u(j) / t) for j not placed yet),    t = explore / (1 - explore)

At diversity 0 this is the model of Plackett (1975, https://doi.org/10.2307/2346567) and Luce over the logits. Adding
Gumbel noise to u / t and taking the greatest draws from exactly this distribution (Kool et al., 2019,
https://arxiv.org/abs/1903.06059). At `explore` 0.5, t is 1: the first item is drawn in proportion to its odds, score /
(1 - score). At 1 every order is equally probable.

The propensity of an item is the probability with which it was drawn at its position, given the items above it. At
position 1 that is its probability of being first. The product over positions 1 to k is the probability of the first k
items in this order. docs/decisions/0042-policies.md says why.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
FloatArray = NDArray[np.float64]
Places = NDArray[np.intp]

_MAX_DIVERSITY = 0.99  # at 1 relevance would not even decide between equally similar candidates
_MAX_INVERSE_TEMPERATURE = 1e6  # beyond it, only candidates of equal utility are left to chance


class Ranked(NamedTuple):
    """The numbers of the candidates in the order in which they are shown, (count,).

    `propensities`, (count,), each above 0 and at most 1: of each item at its position; None without exploration.
    """

    order: Places
    propensities: FloatArray | None


def rank(
    logits: FloatArray,
    vectors: Floats,
    count: int,
    *,
    diversity: float = 0.0,
    explore: float = 0.0,
    rng: np.random.Generator,
) -> Ranked:
    """The first `count` of the candidates; all, if there are fewer.

    - `logits`: (candidates,), finite. `vectors`: (candidates, dimensions), of any length; read with diversity only.
    - `diversity`, `explore`: 0 to 1; at 0, equal candidates stay in their order and `rng` is not used.
    """
    if diversity > 0:
        return _rank_diverse(logits, vectors, count, diversity, explore, rng)
    if explore == 0:
        return Ranked(np.argsort(-logits, kind="stable")[:count], None)
    scaled = inverse_temperature(explore) * logits
    order = np.argsort(-(scaled + rng.gumbel(size=len(logits))), kind="stable")
    return Ranked(order[:count], _plackett_luce(scaled[order])[:count])


def inverse_temperature(explore: float) -> float:
    """1 / t, by which utilities are multiplied before a draw. `explore` is above 0 and at most 1."""
    return min((1.0 - explore) / explore, _MAX_INVERSE_TEMPERATURE)


def step_probabilities(
    logits: FloatArray, vectors: Floats, order: Places, *, diversity: float = 0.0, explore: float = 0.0
) -> FloatArray:
    """(positions, candidates): the probability of each candidate at each position, given the items of `order` above it.

    Each row sums to 1, and is 0 for items above. Without exploration one candidate of each row has 1. `order`: the
    first positions of a ranking, (positions,); the rest as for `rank`.
    """
    slate = _Slate(logits, vectors, diversity)
    rows = np.zeros((len(order), len(logits)))
    for row, placed in zip(rows, order, strict=True):
        if explore > 0:
            row[:] = _softmax(slate.utilities(inverse_temperature(explore)))
        else:
            row[slate.utilities().argmax()] = 1.0
        slate.place(placed)
    return rows


def _rank_diverse(
    logits: FloatArray, vectors: Floats, count: int, diversity: float, explore: float, rng: np.random.Generator
) -> Ranked:
    slate = _Slate(logits, vectors, diversity)
    count = min(count, len(logits))
    order, propensities = np.empty(count, np.intp), np.empty(count)
    for position in range(count):
        if explore > 0:
            scaled = slate.utilities(inverse_temperature(explore))
            chosen = int((scaled + rng.gumbel(size=len(scaled))).argmax())
            propensities[position] = _softmax(scaled)[chosen]
        else:
            chosen = int(slate.utilities().argmax())
        order[position] = chosen
        slate.place(chosen)
    return Ranked(order, propensities if explore > 0 else None)


class _Slate:
    """A ranking that is filled from the top, and the utilities of the candidates that are left."""

    def __init__(self, logits: FloatArray, vectors: Floats, diversity: float):
        self._logits = logits
        self._placed = np.zeros(len(logits), np.bool_)
        self._nearest = np.full(len(logits), -np.inf)  # cosine to the nearest item placed
        bounded = min(diversity, _MAX_DIVERSITY)
        spread = float(logits.std()) if len(logits) else 0.0
        self._penalty = bounded / (1.0 - bounded) * (spread or 1.0)
        self._units = _unit(vectors) if diversity > 0 else None

    def utilities(self, scale: float = 1.0) -> FloatArray:
        """(candidates,): `scale` times the utility; minus infinity for those that are placed."""
        if self._units is None or not self._placed.any():
            scaled = scale * self._logits
        else:
            scaled = scale * (self._logits - self._penalty * self._nearest)
        scaled[self._placed] = -np.inf
        return scaled

    def place(self, candidate: int) -> None:
        self._placed[candidate] = True
        if self._units is not None:
            np.maximum(self._nearest, self._units @ self._units[candidate], out=self._nearest)


def _unit(vectors: Floats) -> Floats:
    """The vectors at length 1; a vector of zeros stays, and is similar to nothing."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = vectors / np.where(lengths > 0, lengths, 1.0)
    return unit


def _plackett_luce(scaled: FloatArray) -> FloatArray:
    """Of each item, its probability among those that are left, of scaled logits in the order that was drawn."""
    left = np.logaddexp.accumulate(scaled[::-1])[::-1]
    propensities: FloatArray = np.exp(scaled - left)
    return propensities


def _softmax(scaled: FloatArray) -> FloatArray:
    odds = np.exp(scaled - scaled.max())
    shares: FloatArray = odds / odds.sum()
    return shares
