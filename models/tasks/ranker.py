"""The ranking model in numpy: how likely a user chooses an item, and what that is made of.

The logit is that of models/training/towers.py, which trains it:

    bias + item's own term + terms of features + term of the user's rate + <h_user, v_item>

`h_user` is a sum over the user's history, so that the logit divides exactly into contributions of history items and of
features. Vectors of the items that the model was trained with are in the bundle, mapped by all replicas. Those of other
items are projections of their text, which the bundle's graph gives: `item_vector, history_vector, own term`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from export.bundle import Bundle
from export.errors import BundleError
from models.tasks.reasons import Contributions

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]

SHRINKAGE = 5.0
"""added to the number of history items under the root: a history of one item says little"""

_MAX_STANDARDIZED = 5.0
_ASSET, _ITEMS = "ranker", "items"
_ARRAYS = ("item_vectors", "history_vectors", "item_terms", "item_features")
_TRAIN_AGAIN = (
    "Train the task again and promote the new version: flywheel train recommendation, then flywheel promote "
    "recommendation VERSION."
)


class Features:
    """Numeric features of one kind (of items, users or contexts): how values are scaled, and what they count for.

    `weights` is (k,), the term of each feature alone; `vectors` is (k, dimensions), its part of the item's or the
    user's vector.
    """

    def __init__(self, names: Sequence[str], mean: Any, scale: Any, weights: Any, vectors: Any, dimensions: int):
        self.names = tuple(names)
        self.mean, self.scale = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
        self.weights = np.asarray(weights, np.float32)
        self.vectors = np.asarray(vectors, np.float32).reshape(len(self.names), dimensions)

    def values(self, given: Sequence[Mapping[str, float]]) -> Floats:
        """(n, k): standardized values. Features that are not given, or unknown, count as the training mean: 0."""
        raw = [[features.get(name, np.nan) for name in self.names] for features in given]
        return standardized(np.array(raw, np.float64).reshape(len(given), len(self.names)), self.mean, self.scale)

    def to_asset(self) -> dict[str, Any]:
        numbers = {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "weights": self.weights.tolist()}
        return {"names": list(self.names), **numbers, "vectors": self.vectors.tolist()}


def compressed(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """The signed logarithm: prices and counts span orders of magnitude."""
    found: NDArray[np.float64] = np.sign(raw) * np.log1p(np.abs(raw))
    return found


def standardized(raw: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> Floats:
    """(n, k) raw values to compressed ones in standard deviations from the mean, at most 5; NaN, unknown, to 0."""
    values = np.nan_to_num((compressed(raw) - mean) / scale, nan=0.0)
    return np.clip(values, -_MAX_STANDARDIZED, _MAX_STANDARDIZED).astype(np.float32)


class Rate(NamedTuple):
    """How often a user chooses, of what is in their history, and what it counts for."""

    mean: float
    """the share of all training events that are chosen, above 0 and below 1"""
    weight: float

    def term(self, chosen: NDArray[np.bool_]) -> float:
        """Of the logit, for a history of which so many are chosen, (n,): 0 without a history."""
        liked = int(np.count_nonzero(chosen))
        odds = (liked + SHRINKAGE * self.mean) / (len(chosen) - liked + SHRINKAGE * (1 - self.mean))
        return self.weight * (math.log(odds) - math.log(self.mean / (1 - self.mean)))


class Past(NamedTuple):
    """A user's history, each item once."""

    vectors: Floats
    """(n, dimensions): history vectors"""
    chosen: NDArray[np.bool_]
    """(n,): whether the user chose the item, or only saw it"""
    weights: Floats
    """(n,): of the events"""
    keys: Sequence[Hashable]
    """(n,): what names the items, to find a candidate in its own history"""


class Candidates(NamedTuple):
    """The items to score."""

    vectors: Floats
    """(n, dimensions): item vectors, features included"""
    terms: Floats
    """(n,): each item's own term, features not included"""
    features: Floats
    """(n, k): standardized"""
    keys: Sequence[Hashable]


class Ranker:
    """The ranking model of a bundle. Thread-safe.

    `ids` are the items that it was trained with. Arrays, by name: `item_vectors` and `history_vectors`, (items,
    dimensions), `item_terms`, (items,), and `item_features`, (items, k), standardized.
    """

    def __init__(
        self,
        ids: Sequence[str],
        arrays: Mapping[str, NDArray[Any]],
        bias: float,
        rate: Rate,
        item: Features,
        user: Features,
        context: Features,
    ):
        self._ids = list(ids)
        self._row_of = {id_: row for row, id_ in enumerate(self._ids)}
        self.arrays = {name: arrays[name] for name in _ARRAYS}
        self.bias, self.rate, self.item, self.user, self.context = bias, rate, item, user, context
        self.dimensions = int(self.arrays["item_vectors"].shape[1])
        shapes = {name: array.shape for name, array in self.arrays.items()}
        n, d = len(self._ids), self.dimensions
        wanted = dict(zip(_ARRAYS, ((n, d), (n, d), (n,), (n, len(item.names))), strict=True))
        if shapes != wanted:
            raise ValueError(f"its arrays have the shapes {shapes}, not {wanted}")

    def rows(self, ids: Iterable[str | None]) -> Rows:
        """The row of each item; -1 for one that the model was not trained with."""
        row_of = self._row_of
        return np.array([row_of.get(id_, -1) for id_ in ids], np.intp)  # type: ignore[arg-type]

    @property
    def width(self) -> int:
        """of the graph's outputs: an item vector, a history vector, and the item's own term"""
        return 2 * self.dimensions + 1

    def past(self, keys: Sequence[Hashable], rows: Rows, projections: Floats, chosen: Any, weights: Any) -> Past:
        """The history of items with these `rows`. `projections` are the graph's outputs for those of row -1, in order.

        No key may occur twice.
        """
        vectors = self._known("history_vectors", rows)
        vectors[rows < 0] = projections[:, self.dimensions : 2 * self.dimensions]
        return Past(vectors, np.array(chosen, bool), np.array(weights, np.float32), keys)

    def candidates(
        self, keys: Sequence[Hashable], rows: Rows, projections: Floats, features: Sequence[Mapping[str, float]]
    ) -> Candidates:
        """The items to score, arguments as in `past`. A known item's features are those of training, unless given."""
        unknown = rows < 0
        vectors, terms = self._known("item_vectors", rows), self._known("item_terms", rows)
        vectors[unknown], terms[unknown] = projections[:, : self.dimensions], projections[:, 2 * self.dimensions]
        values = self._known("item_features", rows)
        if self.item.names and any(features):
            given = self.item.values(features)
            is_given = np.array([[name in own for name in self.item.names] for own in features])
            values = np.where(is_given, given, values)
        return Candidates(vectors + values @ self.item.vectors if self.item.names else vectors, terms, values, keys)

    def _known(self, name: str, rows: Rows) -> Floats:
        """The rows of an array; 0 for -1."""
        array = self.arrays[name]
        known = rows >= 0
        if known.all():
            return array.take(rows, axis=0)
        found = np.zeros((len(rows), *array.shape[1:]), np.float32)
        found[known] = array.take(rows[known], axis=0)
        return found

    def logits(
        self, past: Past, candidates: Candidates, user: Mapping[str, float], context: Mapping[str, float]
    ) -> NDArray[np.float64]:
        """(candidates,): the logit of the probability that the user chooses each candidate."""
        f, c = self.user.values([user])[0], self.context.values([context])[0]
        factors = _factors(past)
        taste = factors @ past.vectors + f @ self.user.vectors + c @ self.context.vectors
        fixed = self.bias + float(f @ self.user.weights) + float(c @ self.context.weights)
        fixed += self.rate.term(past.chosen)
        found = candidates.terms + candidates.features @ self.item.weights + candidates.vectors @ taste
        logits: NDArray[np.float64] = found.astype(np.float64) + fixed
        for i, others in self._in_their_history(past, candidates):
            logits[i] += (_factors(past, others) - factors) @ (past.vectors @ candidates.vectors[i])
            logits[i] += self.rate.term(past.chosen[others]) - self.rate.term(past.chosen)
        return logits

    def context_logits(self, contexts: Sequence[Mapping[str, float]], vectors: Floats) -> Floats:
        """(n,): what each context adds to the logit of the item beside it, of which `vectors` are the item vectors."""
        values = self.context.values(contexts)
        found: Floats = values @ self.context.weights + ((values @ self.context.vectors) * vectors).sum(1)
        return found

    def contributions(
        self, past: Past, candidates: Candidates, user: Mapping[str, float], context: Mapping[str, float]
    ) -> Contributions:
        """What `logits` of the same arguments are made of.

        `features` are those of the candidate, the user and the context. One of the user or the context counts by itself
        and through the candidate's vector. One of the candidate counts by itself only: through its vector, it is part
        of what the history items contribute. `user` is how often the user chooses at all.
        """
        f, c = self.user.values([user])[0], self.context.values([context])[0]
        factors = np.repeat(_factors(past)[None], len(candidates.keys), 0)
        rate = np.full(len(candidates.keys), self.rate.term(past.chosen))
        for i, others in self._in_their_history(past, candidates):
            factors[i], rate[i] = _factors(past, others), self.rate.term(past.chosen[others])
        of_features = (
            candidates.features * self.item.weights,
            f * (self.user.weights + candidates.vectors @ self.user.vectors.T),
            c * (self.context.weights + candidates.vectors @ self.context.vectors.T),
        )
        return Contributions(
            history=(factors * (candidates.vectors @ past.vectors.T)).astype(np.float64),
            features=np.concatenate(of_features, 1).astype(np.float64),
            feature_names=(*self.item.names, *self.user.names, *self.context.names),
            item=candidates.terms.astype(np.float64),
            user=rate,
            base=self.bias,
        )

    @staticmethod
    def _in_their_history(past: Past, candidates: Candidates) -> Iterable[tuple[int, NDArray[np.bool_]]]:
        """Candidates that are in the history, each with the rest of the history, (n,), which scores it in training."""
        place = {key: j for j, key in enumerate(past.keys)}
        for i, key in enumerate(candidates.keys):
            if (j := place.get(key)) is not None:
                yield i, np.arange(len(past.keys)) != j

    def to_bundle(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """The assets and the arrays of a bundle, by name."""
        features = {name: getattr(self, name).to_asset() for name in ("item", "user", "context")}
        return {_ASSET: {"bias": self.bias, "rate": self.rate._asdict(), **features}, _ITEMS: self._ids}, self.arrays

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Self:
        """The bundle's ranker, its arrays mapped. Raises BundleError when it has none, or one that does not fit."""
        asset, ids = bundle.asset(_ASSET), bundle.asset(_ITEMS)
        arrays = {name: bundle.tower(name) for name in _ARRAYS}
        if asset is None or ids is None or any(array is None for array in arrays.values()):
            raise BundleError(
                f"The bundle {bundle.path} has no vectors of items: an older Flywheel made it, whose rankers this one "
                f"does not read. {_TRAIN_AGAIN}"
            )
        try:
            dimensions = arrays["item_vectors"].shape[1]  # type: ignore[union-attr]
            features = {name: Features(**asset[name], dimensions=dimensions) for name in ("item", "user", "context")}
            return cls(ids, arrays, float(asset["bias"]), Rate(**asset["rate"]), **features)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"The ranker of the bundle {bundle.path} is damaged: {error}. {_TRAIN_AGAIN}") from error


def _factors(past: Past, counted: NDArray[np.bool_] | None = None) -> Floats:
    """(n,): what each history item's vector is multiplied by, of those `counted`; 0 for the others."""
    chosen = past.chosen
    counted = np.ones(len(chosen), bool) if counted is None else counted
    liked = int((chosen & counted).sum())
    others = int(counted.sum()) - liked
    signed = np.where(chosen, 1 / np.sqrt(liked + SHRINKAGE), -1 / np.sqrt(others + SHRINKAGE))
    found: Floats = (signed * past.weights * counted).astype(np.float32)
    return found


def named(names: Sequence[str], values: NDArray[Any]) -> dict[str, float]:
    """(k,) features by name, without those that are missing."""
    return {name: value for name, value in zip(names, values.tolist(), strict=True) if value == value}


def probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sigmoid of logits, (n,): 0 to 1."""
    found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(logits, -60, 60)))
    return found
