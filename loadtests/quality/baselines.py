"""What a user would build in an afternoon: LightGBM without text, and implicit's ALS. Run in an environment of its own.

    python baselines.py INPUT OUTPUT

INPUT is an .npz with `user`, `item`, `chosen` and `holdout`, (events,), sorted by user, then time, and `classes`,
(items, k), 0 or 1: what the catalogue says of an item beside its title. OUTPUT gets the scores of the held-out events.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import implicit
import lightgbm
import numpy as np
from scipy.sparse import csr_matrix

_PRIOR = 5.0
_FACTORS = 32
_FOLDS = 5


def main() -> None:
    with np.load(sys.argv[1]) as given:
        data = {name: given[name] for name in given.files}
    scores = {"lightgbm": lightgbm_scores(data), "implicit": implicit_scores(data), "item_mean": item_means(data)}
    np.savez(Path(sys.argv[2]), **scores)


def lightgbm_scores(data: dict[str, Any]) -> Any:
    """Statistics of item and user, the user's affinity to the item's classes, and the classes."""
    holdout = data["holdout"]
    design = _design(data)
    parameters = {"objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "seed": 7, "verbose": -1}
    known = lightgbm.Dataset(design[~holdout], data["chosen"][~holdout].astype(int))
    return lightgbm.train(parameters, known, num_boost_round=200).predict(design[holdout])


def _design(data: dict[str, Any]) -> Any:
    """Statistics are of training events in other folds than the event's: leaving out the event alone gives it away."""
    user, item, chosen, holdout = (data[name] for name in ("user", "item", "chosen", "holdout"))
    classes = data["classes"].astype(float)
    fold = np.where(holdout, _FOLDS, np.random.default_rng(7).integers(0, _FOLDS, len(user)))
    own = np.where(holdout, 0.0, 1.0)
    mean = (own * chosen).sum() / own.sum()

    def elsewhere(group: Any, weights: Any) -> Any:
        inside = np.bincount(group * (_FOLDS + 1) + fold, weights, (int(group.max()) + 1) * (_FOLDS + 1))
        return np.bincount(group, weights)[group] - inside[group * (_FOLDS + 1) + fold]

    def rate(group: Any, weights: Any) -> tuple[Any, Any]:
        count = elsewhere(group, weights)
        return (elsewhere(group, weights * chosen) + _PRIOR * mean) / (count + _PRIOR), np.log1p(count)

    of_classes = [rate(user, own * classes[item, k])[0] for k in range(classes.shape[1])]
    affinity = (np.column_stack(of_classes) * classes[item]).sum(1) / np.maximum(classes[item].sum(1), 1)
    return np.column_stack((*rate(item, own), *rate(user, own), affinity, classes[item]))


def implicit_scores(data: dict[str, Any]) -> Any:
    """Alternating least squares on what users chose."""
    user, item, holdout = data["user"], data["item"], data["holdout"]
    learned = ~holdout & data["chosen"]
    shape = (int(user.max()) + 1, int(item.max()) + 1)
    matrix = csr_matrix((np.ones(learned.sum(), np.float32), (user[learned], item[learned])), shape)
    model = implicit.als.AlternatingLeastSquares(factors=_FACTORS, random_state=7, num_threads=1)
    model.fit(matrix, show_progress=False)
    return (model.user_factors[user[holdout]] * model.item_factors[item[holdout]]).sum(1)


def item_means(data: dict[str, Any]) -> Any:
    """The share of an item's training events in which it was chosen, smoothed: the list of bestsellers."""
    item, holdout = data["item"], data["holdout"]
    learned, items = ~holdout, int(item.max()) + 1
    count = np.bincount(item[learned], minlength=items)
    liked = np.bincount(item[learned], data["chosen"][learned], items)
    return ((liked + _PRIOR * data["chosen"][learned].mean()) / (count + _PRIOR))[item[holdout]]


if __name__ == "__main__":
    main()
