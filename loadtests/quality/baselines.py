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


def main() -> None:
    with np.load(sys.argv[1]) as given:
        data = {name: given[name] for name in given.files}
    scores = {"lightgbm": lightgbm_scores(data), "implicit": implicit_scores(data), "item_mean": item_means(data)}
    np.savez(Path(sys.argv[2]), **scores)


def lightgbm_scores(data: dict[str, Any]) -> Any:
    """Statistics of item and user, the user's affinity to the item's classes, each without the event itself."""
    holdout = data["holdout"]
    design = _design(data)
    model = lightgbm.LGBMClassifier(n_estimators=200, learning_rate=0.05, num_leaves=31, random_state=7, verbose=-1)
    model.fit(design[~holdout], data["chosen"][~holdout])
    return model.predict_proba(design[holdout])[:, 1]


def _design(data: dict[str, Any]) -> Any:
    user, item, chosen, holdout = (data[name] for name in ("user", "item", "chosen", "holdout"))
    classes, own = data["classes"].astype(float), np.where(holdout, 0.0, 1.0)
    liked = own * chosen
    mean = liked.sum() / own.sum()

    def rates(group: Any) -> tuple[Any, Any]:
        count = np.bincount(group, own)[group] - own
        return (np.bincount(group, liked)[group] - liked + _PRIOR * mean) / (count + _PRIOR), np.log1p(count)

    width = classes.shape[1]
    cells = user[:, None] * width + np.arange(width)
    weights = classes[item] * own[:, None]
    size = (int(user.max()) + 1) * width
    seen = np.bincount(cells.ravel(), weights.ravel(), size)[cells] - weights
    chose = np.bincount(cells.ravel(), (weights * chosen[:, None]).ravel(), size)[cells] - weights * chosen[:, None]
    affinity = (chose + _PRIOR * mean) / (seen + _PRIOR)
    of_item = (affinity * classes[item]).sum(1) / np.maximum(classes[item].sum(1), 1)
    return np.column_stack((*rates(item), *rates(user), of_item, classes[item]))


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
