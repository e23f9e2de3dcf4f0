"""The ranker of a task's first version: text vectors without an encoder, fitted in seconds, and without torch.

Text vectors are TF-IDF of tokens, projected to few dimensions (latent semantic analysis, Deerwester et al., 1990). They
are the item's and the history item's vector alike, up to a factor; the factor, the popularity of items and the weights
of features are those of a logistic regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression

from export.linear import LinearReader
from models.data.interactions import Interactions
from models.tasks.ranker import SHRINKAGE, Features, Ranker, Rate
from models.training.linear_reader import LinearSettings, Rows, ngram_features
from models.training.tower_examples import Examples, Floats, Scalings, examples_of, history_of, scalings_of

DIMENSIONS = 64
SETTINGS = LinearSettings(max_ngram=1)
"""Pairs of neighbours added nothing on the seed shop, at four times the size."""
_PRIOR = 10.0  # pseudo-events at the average popularity, for smoothing
_MAX_FITTED = 500_000  # events of the regression, which has a handful of weights


@dataclass(frozen=True)
class _Fitted:
    """The regression: `affinity` is the factor of <h, t>."""

    bias: float
    affinity: float
    popularity: Floats
    """(items,): the items' own terms"""
    features: tuple[Floats, Floats, Floats]
    rate: Rate


def fit_first_reader(interactions: Interactions, rows: Rows) -> LinearReader:
    """The reader of texts, whose outputs are projections for a ranker. `rows` are the token ids of the items' texts."""
    vocabulary, matrix = ngram_features(rows, DIMENSIONS, SETTINGS)
    dimensions = max(1, min(DIMENSIONS, *(side - 1 for side in matrix.shape)))
    axes = TruncatedSVD(dimensions, random_state=0).fit(matrix).components_.T.astype(np.float32)
    texts = (matrix @ axes).astype(np.float32)
    fitted = _fit(examples_of(interactions, texts, scalings_of(interactions)))
    vectors = axes * np.float32(np.sqrt(max(fitted.affinity, 0.0)))
    weights = np.concatenate((vectors, vectors, np.zeros((len(vectors), 1), np.float32)), 1)
    return LinearReader(vocabulary, weights.astype(np.float16), np.zeros(2 * dimensions + 1, np.float32))


def first_ranker(interactions: Interactions, projections: Floats) -> Ranker:
    """The ranker, given the reader's outputs for the items' texts, (items, 2 d + 1)."""
    scalings = scalings_of(interactions)
    d = projections.shape[1] // 2
    examples = examples_of(interactions, projections[:, :d], scalings)
    fitted = _fit(examples)
    arrays = {
        "item_vectors": projections[:, :d], "history_vectors": projections[:, d : 2 * d],
        "item_terms": fitted.popularity, "item_features": examples.item_features,
    }  # fmt: skip
    item, user, context = _features(interactions, scalings, fitted, d)
    return Ranker(interactions.item_names, arrays, fitted.bias, fitted.rate, item, user, context)


def _features(interactions: Interactions, scalings: Scalings, fitted: _Fitted, d: int) -> list[Features]:
    names = (interactions.item_feature_names, interactions.user_feature_names, interactions.context_feature_names)
    return [
        Features(own, *scaling, weights, np.zeros((len(own), d), np.float32), d)
        for own, scaling, weights in zip(names, scalings, fitted.features, strict=True)
    ]


def _fit(examples: Examples) -> _Fitted:
    """The weights of a logistic regression on training events, each without itself in what describes it."""
    learned = examples.only(examples.learn)
    own = learned.weight * learned.chosen
    shown = np.bincount(learned.item, learned.weight, examples.items).astype(np.float64)
    chosen = np.bincount(learned.item, own, examples.items).astype(np.float64)
    mean = float(np.clip(own.sum() / learned.weight.sum(), 1e-3, 1 - 1e-3))
    popularity = _log_odds(chosen, shown, mean)
    without_itself = _log_odds(chosen[learned.item] - own, shown[learned.item] - learned.weight, mean)
    tastes, rates = _tastes(examples, learned, mean)
    affinity = (tastes * learned.texts[learned.item]).sum(1)
    given = (
        learned.item_features[learned.item], learned.user_features[learned.user], learned.context_features,
    )  # fmt: skip
    design = np.column_stack((affinity, without_itself, rates, *given))
    some = np.random.default_rng(0).permutation(len(design))[:_MAX_FITTED]
    spread = np.maximum(design[some].std(0), 1e-6)
    regression = LogisticRegression(max_iter=1000)
    regression.fit(design[some] / spread, learned.chosen[some], sample_weight=learned.weight[some])
    weights = (regression.coef_[0] / spread).astype(np.float32)
    at = np.cumsum([3, *(part.shape[1] for part in given)])
    features = (weights[at[0] : at[1]], weights[at[1] : at[2]], weights[at[2] :])
    terms = (weights[1] * popularity).astype(np.float32)
    return _Fitted(float(regression.intercept_[0]), float(weights[0]), terms, features, Rate(mean, float(weights[2])))


def _log_odds(chosen: NDArray[Any], shown: NDArray[Any], mean: float) -> NDArray[np.float64]:
    """Of an item's share of chosen events, smoothed to the mean."""
    share = (chosen + _PRIOR * mean) / (shown + _PRIOR)
    found: NDArray[np.float64] = np.log(share / (1 - share))
    return found


def _tastes(examples: Examples, learned: Examples, mean: float) -> tuple[Floats, Floats]:
    """What each event's user chose less what they did not, (events, dimensions), and how often they chose, (events,).

    Both are without the event's own item, and like models.tasks.ranker computes them.
    """
    history = history_of(examples)
    user = np.repeat(np.arange(examples.users), np.diff(history.starts))
    weighted = examples.texts[history.item] * history.weight[:, None]
    own = history.rows_of(learned.user, learned.item, examples.items)
    inside = own >= 0
    tastes = np.zeros((len(learned.user), weighted.shape[1]), np.float32)
    rates = np.full(len(learned.user), -np.log(mean / (1 - mean)), np.float32)
    for chosen, sign in ((True, 1), (False, -1)):
        part = history.chosen == chosen
        sums = np.zeros((examples.users, weighted.shape[1]), np.float32)
        np.add.at(sums, user[part], weighted[part])
        counts = np.bincount(user[part], minlength=examples.users)
        is_own = inside & (history.chosen[own] == chosen) if len(history.item) else inside
        rest = sums[learned.user] - np.where(is_own[:, None], weighted[own], 0) if len(history.item) else 0
        numbers = counts[learned.user] - is_own
        tastes += sign * rest / np.sqrt(numbers + SHRINKAGE)[:, None]
        rates += sign * np.log(numbers + SHRINKAGE * (mean if chosen else 1 - mean))
    return tastes, rates
