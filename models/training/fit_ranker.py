"""Fit a ranker to interactions: matrices for the text tower, then the weights that combine it with other features."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from export.model import Model
from models.data.dataset import DatasetError
from models.data.interactions import Impression, Interactions, histories
from models.evaluation.metrics import ranker_metrics
from models.tasks.ranker import Item, Ranker

Phase = Literal["before", "tower", "ranker", "holdout"]
_TOWER_SHARE = 0.75  # share of a user's training impressions, the oldest
_MAX_CELLS = 25_000_000  # of a matrix of users and items: 100 MB, and training holds half a dozen
_PRIOR = 10.0  # pseudo-impressions at the average popularity, for smoothing


def phases(impressions: Sequence[Impression]) -> list[Phase]:
    """What each of one user's impressions, oldest first, is used for: the tower, the ranker's weights, or the holdout.

    Choices made before the recording ("before") are used for none of these, only as history of the others.

    The weights are fitted on impressions that the tower was not trained on. On its training impressions its cosines
    are overfitted, and a ranker whose weights were fitted to them ranked worse than popularity alone.
    """
    training = sum(not (impression.holdout or impression.before) for impression in impressions)
    found: list[Phase] = []
    trained = 0
    for impression in impressions:
        older = trained < training * _TOWER_SHARE
        trained += not (impression.holdout or impression.before)
        if impression.before:
            found.append("before")
        else:
            found.append("holdout" if impression.holdout else "tower" if older else "ranker")
    return found


def tower_matrices(interactions: Interactions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`shown` and `chosen` for item_tower.fit_tower, both (users, items), from the impressions of the tower's phase.

    Of very many users, a fixed random sample is taken. Raises DatasetError when the remaining impressions are too few
    to fit the ranking weights.
    """
    outcomes = {
        impression.chosen
        for impressions in interactions.by_user().values()
        for impression, phase in zip(impressions, phases(impressions), strict=True)
        if phase == "ranker"
    }
    if len(outcomes) < 2:
        raise DatasetError(
            f"{interactions.name}: too few impressions a user. The newest quarter of the training rows must hold both "
            "chosen and unchosen items; give more rows a user."
        )
    column = {item: i for i, item in enumerate(interactions.items)}
    users = [*interactions.by_user().values()]
    if len(users) > (max_users := max(1, _MAX_CELLS // len(column))):
        users = random.Random(0).sample(users, max_users)
    shown = np.zeros((len(users), len(column)), np.float32)
    chosen = np.zeros_like(shown)
    for row, impressions in enumerate(users):
        for impression, phase in zip(impressions, phases(impressions), strict=True):
            at = row, column[impression.item]
            if phase == "tower":
                shown[at] = 1.0
            if phase in ("tower", "before"):
                chosen[at] = max(chosen[at], impression.chosen)
    return shown, chosen


def fit_ranker(interactions: Interactions, model: Model) -> tuple[Ranker, dict[str, float]]:
    """The ranker, fitted on training impressions, and its metrics on the held-out ones.

    `popularity_auc` is the AUC of ranking by popularity alone, on the same impressions.
    """
    names = list(interactions.items)
    vectors = model.predict([interactions.items[name].text for name in names])
    vector_of = dict(zip(names, vectors, strict=True))
    popularity, shown = _popularity(interactions)
    raw = np.array([[interactions.items[n].numbers.get(k, np.nan) for k in interactions.numbers] for n in names])
    raw = np.sign(raw) * np.log1p(np.abs(raw))
    mean, scale = np.nanmean(raw, 0), np.maximum(np.nanstd(raw, 0), 1e-6)
    unfitted = Ranker(interactions.numbers, mean.tolist(), scale.tolist(), popularity, [], 0.0)
    x, y, phase, users = _design(interactions, unfitted, vector_of, popularity, shown)
    fitted, held_out = phase == "ranker", phase == "holdout"
    center, spread = x[fitted].mean(0), np.maximum(x[fitted].std(0), 1e-6)
    regression = LogisticRegression(max_iter=1000).fit((x[fitted] - center) / spread, y[fitted])
    weights = regression.coef_[0] / spread
    bias = float(regression.intercept_[0] - (weights * center).sum())
    ranker = Ranker(interactions.numbers, mean.tolist(), scale.tolist(), popularity, weights.tolist(), bias)
    held_out_users = [user for user, held in zip(users, held_out, strict=True) if held]
    metrics = ranker_metrics(held_out_users, y[held_out].tolist(), (x[held_out] @ weights + bias).tolist())
    by_popularity = ranker_metrics(held_out_users, y[held_out].tolist(), x[held_out][:, 4].tolist())
    return ranker, {**metrics, "popularity_auc": by_popularity["auc"]}


def _popularity(interactions: Interactions) -> tuple[dict[str, float], Counter[str]]:
    """By item: the share of its training impressions in which it was chosen, smoothed; how often it was shown."""
    shown, chosen = Counter[str](), Counter[str]()
    for impression in interactions.impressions:
        if not (impression.holdout or impression.before):
            shown[impression.item] += 1
            chosen[impression.item] += impression.chosen
    mean = sum(chosen.values()) / sum(shown.values())
    return {item: (chosen[item] + _PRIOR * mean) / (shown[item] + _PRIOR) for item in shown}, shown


def _design(
    interactions: Interactions,
    ranker: Ranker,
    vector_of: dict[str, NDArray[np.float32]],
    popularity: dict[str, float],
    shown: Counter[str],
) -> tuple[Any, Any, Any, list[str]]:
    """Features, chosen, phase and user of each impression; features use the history at that time."""
    rows, chosen, phase, users = [], [], list[Phase](), []
    for user, impressions in interactions.by_user().items():
        for impression, its_phase, history in zip(
            impressions, phases(impressions), histories(impressions), strict=True
        ):
            if its_phase == "before":
                continue
            past = [Item(name, interactions.items[name].numbers) for name in history]
            past_vectors = np.array([vector_of[name] for name in history])
            item = Item(impression.item, interactions.items[impression.item].numbers)
            rows.append(ranker.features(past, past_vectors, [item], vector_of[impression.item][None])[0])
            if not impression.holdout:
                # The item's popularity includes this outcome: leave it out, or the label leaks into the feature.
                total = shown[impression.item] + _PRIOR
                rows[-1][4] = (popularity[impression.item] * total - impression.chosen) / (total - 1)
            chosen.append(impression.chosen)
            phase.append(its_phase)
            users.append(user)
    return np.array(rows), np.array(chosen), np.array(phase), users
