"""Behaviour to a ranking model: choices for the text tower, then the weights that combine it with numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from export.session import OnnxSession
from models.behaviour import Behaviour, Impression
from models.evaluate import ranker_metrics
from models.finetune import Choice
from models.ranking import Item, Ranker

HISTORY = 10  # newest chosen items that describe a user, in training as in serving
# The tower sees less of each user, so that a batch holds more users; a longer mean of vectors needs no training.
_TOWER_HISTORY = 3
_PRIOR = 10.0  # impressions' worth of belief that an item is as popular as the average one


def choices_of(behaviour: Behaviour) -> list[Choice]:
    """Every training choice of a user who had chosen something before."""
    found = []
    for impressions in behaviour.by_user().values():
        history: list[str] = []
        for impression in impressions:
            if impression.holdout or not impression.chosen:
                continue
            text = behaviour.items[impression.item].text
            if history:
                found.append(Choice(tuple(history[-_TOWER_HISTORY:]), text))
            history.append(text)
    return found


def fit_ranker(behaviour: Behaviour, session: OnnxSession) -> tuple[Ranker, dict[str, float]]:
    """The weights, fitted on training impressions, and the metrics on the held-out ones.

    The metrics compare with ranking by popularity alone, on the same impressions.
    """
    names = list(behaviour.items)
    vectors = session.predict([behaviour.items[name].text for name in names])
    vector_of = dict(zip(names, vectors, strict=True))
    popularity, shown = _popularity(behaviour)
    raw = np.array([[behaviour.items[n].numbers.get(k, np.nan) for k in behaviour.numbers] for n in names])
    raw = np.sign(raw) * np.log1p(np.abs(raw))
    mean, scale = np.nanmean(raw, 0), np.maximum(np.nanstd(raw, 0), 1e-6)
    unfitted = Ranker(behaviour.numbers, mean.tolist(), scale.tolist(), popularity, [], 0.0)
    x, y, held_out, users = _design(behaviour, unfitted, vector_of, popularity, shown)
    center, spread = x[~held_out].mean(0), np.maximum(x[~held_out].std(0), 1e-6)
    model = LogisticRegression(max_iter=1000).fit((x[~held_out] - center) / spread, y[~held_out])
    weights = model.coef_[0] / spread
    bias = float(model.intercept_[0] - (weights * center).sum())
    ranker = Ranker(behaviour.numbers, mean.tolist(), scale.tolist(), popularity, weights.tolist(), bias)
    own = [user for user, held in zip(users, held_out, strict=True) if held]
    metrics = ranker_metrics(own, y[held_out].tolist(), (x[held_out] @ weights + bias).tolist())
    by_popularity = ranker_metrics(own, y[held_out].tolist(), x[held_out][:, 4].tolist())
    return ranker, {**metrics, "popularity_auc": by_popularity["auc"]}


def _popularity(behaviour: Behaviour) -> tuple[dict[str, float], Counter[str]]:
    """Share of training impressions in which an item was chosen, smoothed to the mean; how often it was shown."""
    shown, chosen = Counter[str](), Counter[str]()
    for impression in behaviour.impressions:
        if not impression.holdout:
            shown[impression.item] += 1
            chosen[impression.item] += impression.chosen
    mean = sum(chosen.values()) / sum(shown.values())
    return {item: (chosen[item] + _PRIOR * mean) / (shown[item] + _PRIOR) for item in shown}, shown


def _design(
    behaviour: Behaviour,
    ranker: Ranker,
    vector_of: dict[str, NDArray[np.float32]],
    popularity: dict[str, float],
    shown: Counter[str],
) -> tuple[Any, Any, Any, list[str]]:
    """Features, outcome and held-out flag of every impression, with the history as it stood at that moment."""
    rows, chosen, held_out, users = [], [], [], []
    for user, impressions in behaviour.by_user().items():
        history: list[Impression] = []
        for impression in impressions:
            past = [Item(i.item, behaviour.items[i.item].numbers) for i in history[-HISTORY:]]
            past_vectors = np.array([vector_of[i.item] for i in history[-HISTORY:]])
            item = Item(impression.item, behaviour.items[impression.item].numbers)
            rows.append(ranker.features(past, past_vectors, [item], vector_of[impression.item][None])[0])
            if not impression.holdout:
                # This very outcome is in the item's popularity: leave it out, or its weight is flattered.
                total = shown[impression.item] + _PRIOR
                rows[-1][4] = (popularity[impression.item] * total - impression.chosen) / (total - 1)
            chosen.append(impression.chosen)
            held_out.append(impression.holdout)
            users.append(user)
            if impression.chosen:
                history.append(impression)
    return np.array(rows), np.array(chosen), np.array(held_out), users
