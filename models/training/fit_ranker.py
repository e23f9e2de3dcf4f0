"""Fit a ranker to interactions: matrices for the text tower, then the weights that combine it with other features."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from export.model import Model
from models.data.dataset import DatasetError
from models.data.interactions import Events, Interactions, histories
from models.evaluation.metrics import ranker_metrics
from models.tasks.ranker import Item, Ranker

Phase = Literal["before", "tower", "ranker", "holdout"]
_TOWER_SHARE = 0.75  # share of a user's training impressions, the oldest
_MAX_CELLS = 25_000_000  # of a matrix of users and items: 100 MB, and training holds half a dozen
_PRIOR = 10.0  # pseudo-impressions at the average popularity, for smoothing


def phases(events: Events) -> NDArray[np.str_]:
    """(events,): what each event is used for, a Phase: the tower, the ranker's weights, or the holdout.

    Choices made before the recording ("before") are used for none of these, only as history of the others.

    The weights are fitted on events that the tower was not trained on. On its training events its cosines are
    overfitted, and a ranker whose weights were fitted to them ranked worse than popularity alone.
    """
    of_users = np.bincount(events.user[events.training], minlength=int(events.user.max(initial=-1)) + 1)
    earlier = np.concatenate([[0], np.cumsum(events.training)])[:-1]  # of all users
    first = np.searchsorted(events.user, events.user)
    older = earlier - earlier[first] < of_users[events.user] * _TOWER_SHARE
    return np.select([events.before, events.holdout, older], ["before", "holdout", "tower"], "ranker")


def tower_matrices(interactions: Interactions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`shown` and `chosen` for item_tower.fit_tower, both (users, items), from the impressions of the tower's phase.

    Of very many users, a fixed random sample is taken. Raises DatasetError when the remaining impressions are too few
    to fit the ranking weights.
    """
    events, phase = interactions.events, phases(interactions.events)
    if len(np.unique(events.chosen[phase == "ranker"])) < 2:
        raise DatasetError(
            f"{interactions.name}: too few impressions a user. The newest quarter of the training rows must hold both "
            "chosen and unchosen items; give more rows a user."
        )
    items = len(interactions.item_names)
    users = np.unique(events.user)
    if len(users) > (max_users := max(1, _MAX_CELLS // items)):
        users = np.sort(np.random.default_rng(0).choice(users, max_users, replace=False))
    shown = np.zeros((len(users), items), np.float32)
    chosen = np.zeros_like(shown)
    rows = np.minimum(np.searchsorted(users, events.user), len(users) - 1)
    taken = users[rows] == events.user
    tower = taken & (phase == "tower")
    shown[rows[tower], events.item[tower]] = 1.0
    known = taken & np.isin(phase, ("tower", "before")) & events.chosen
    chosen[rows[known], events.item[known]] = 1.0
    return shown, chosen


def fit_ranker(interactions: Interactions, model: Model) -> tuple[Ranker, dict[str, float]]:
    """The ranker, fitted on training impressions, and its metrics on the held-out ones.

    `popularity_auc` is the AUC of ranking by popularity alone, on the same impressions.
    """
    vectors = model.predict(interactions.texts)
    popularity, shown = _popularity(interactions)
    raw = interactions.item_features.astype(np.float64)
    raw = np.sign(raw) * np.log1p(np.abs(raw))
    mean, scale = np.nanmean(raw, 0), np.maximum(np.nanstd(raw, 0), 1e-6)
    unfitted = Ranker(interactions.item_feature_names, mean.tolist(), scale.tolist(), popularity, [], 0.0)
    x, y, phase, users = _design(interactions, unfitted, vectors, popularity, shown)
    fitted, held_out = phase == "ranker", phase == "holdout"
    center, spread = x[fitted].mean(0), np.maximum(x[fitted].std(0), 1e-6)
    regression = LogisticRegression(max_iter=1000).fit((x[fitted] - center) / spread, y[fitted])
    weights = regression.coef_[0] / spread
    bias = float(regression.intercept_[0] - (weights * center).sum())
    ranker = Ranker(interactions.item_feature_names, mean.tolist(), scale.tolist(), popularity, weights.tolist(), bias)
    held_out_users = [user for user, held in zip(users, held_out, strict=True) if held]
    metrics = ranker_metrics(held_out_users, y[held_out].tolist(), (x[held_out] @ weights + bias).tolist())
    by_popularity = ranker_metrics(held_out_users, y[held_out].tolist(), x[held_out][:, 4].tolist())
    return ranker, {**metrics, "popularity_auc": by_popularity["auc"]}


def _popularity(interactions: Interactions) -> tuple[dict[str, float], NDArray[np.float64]]:
    """By item: the share of its training impressions in which it was chosen, smoothed; how often it was shown.

    Items that no training impression has are not in the first.
    """
    events, items = interactions.events, len(interactions.item_names)
    shown = np.bincount(events.item[events.training], minlength=items).astype(np.float64)
    chosen = np.bincount(events.item[events.training & events.chosen], minlength=items)
    smoothed = (chosen + _PRIOR * chosen.sum() / shown.sum()) / (shown + _PRIOR)
    return {interactions.item_names[item]: float(smoothed[item]) for item in np.flatnonzero(shown).tolist()}, shown


def _design(
    interactions: Interactions,
    ranker: Ranker,
    vectors: NDArray[np.float32],
    popularity: dict[str, float],
    shown: NDArray[np.float64],
) -> tuple[Any, Any, Any, list[str]]:
    """Features, chosen, phase and user of each impression; features use the history at that time."""
    events, phase = interactions.events, phases(interactions.events)
    items = [Item(name, interactions.item_numbers(number)) for number, name in enumerate(interactions.item_names)]
    rows = []
    for at, history in enumerate(histories(events)):
        if events.before[at]:
            continue
        item = int(events.item[at])
        past = [items[number] for number in history]
        rows.append(ranker.features(past, vectors[history], [items[item]], vectors[[item]])[0])
        if not events.holdout[at]:
            # The item's popularity includes this outcome: leave it out, or the label leaks into the feature.
            total = shown[item] + _PRIOR
            rows[-1][4] = (popularity[interactions.item_names[item]] * total - events.chosen[at]) / (total - 1)
    used = ~events.before
    users = [interactions.user_names[user] for user in events.user[used]]
    return np.array(rows), events.chosen[used], phase[used], users
