"""Why an item has its score: what each part of the request adds to the score's log-odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_DECIMALS = 4  # of log-odds, as in the explanations of a classifier
_MAX_OF_A_SOURCE = 10  # history items, and features, that are listed one by one


@dataclass(frozen=True)
class Contributions:
    """What makes up the logits of a request's candidates. A logit is the natural logarithm of score / (1 - score).

    - `history`: (candidates, history items), what each item of the history adds.
    - `features`: (candidates, features), what each number adds; `feature_names`: theirs.
    - `item`: (candidates,), what is known of the item itself, such as how often it is chosen.
    - `user`: (candidates,), what is known of the user besides the history's items.
    - `base`: what all candidates of all requests have.
    """

    history: FloatArray
    features: FloatArray
    feature_names: tuple[str, ...]
    item: FloatArray
    user: FloatArray
    base: float

    @property
    def logits(self) -> FloatArray:
        """(candidates,): the sum of all."""
        total: FloatArray = self.history.sum(1) + self.features.sum(1) + self.item + self.user + self.base
        return total


def reasons(found: Contributions, candidate: int, history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The reasons for one candidate as clients get them, the greatest first; they sum to the logit of its score.

    `history` says what each item of the history is called in its reason. The ten history items and the ten features
    that add or take most have a reason each; those that are left share one, which says how many `others` they are.
    `base` stands last.
    """
    rows = _greatest("history", found.history[candidate], history)
    rows += _greatest("feature", found.features[candidate], [{"name": name} for name in found.feature_names])
    rows += [
        {"source": source, "contribution": _rounded(values[candidate])}
        for source, values in (("item", found.item), ("user", found.user))
    ]
    rows = [row for row in rows if row["contribution"]]
    rows.sort(key=lambda row: -abs(row["contribution"]))
    rest = _rounded(found.logits[candidate]) - sum(row["contribution"] for row in rows)
    return [*rows, {"source": "base", "contribution": _rounded(rest)}]  # takes what rounding left


def _greatest(source: str, values: FloatArray, named: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    order = np.argsort(-np.abs(values), kind="stable")
    listed, others = order[:_MAX_OF_A_SOURCE], order[_MAX_OF_A_SOURCE:]
    rows = [{"source": source, **named[i], "contribution": _rounded(values[i])} for i in listed]
    if len(others):
        rows.append({"source": source, "others": len(others), "contribution": _rounded(values[others].sum())})
    return rows


def _rounded(value: Any) -> float:
    return round(float(value), _DECIMALS)
