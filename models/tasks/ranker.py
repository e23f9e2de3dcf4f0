"""The ranking model: a logistic regression over features of text similarity, popularity and item numbers.

For a user's history H and a candidate c, with unit vectors from the text model: the cosine of c with the mean of H,
with its nearest item in H and with its newest item; whether there is a history at all; how often c was chosen
in training when it was shown (smoothed to the mean); and for each number (price, ...) its standardized value
and its distance from the mean of H. Missing numbers count as the training mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.tasks.reasons import Contributions

FloatArray = NDArray[np.float64]

CHOSEN = frozenset({"click", "buy", "like"})
SHOWN = frozenset({"view"})
EVENTS = CHOSEN | SHOWN
"""the events of a user on an item"""

HISTORY = 10  # newest chosen items that describe a user, in training as in serving


class Item(NamedTuple):
    """An item without its text."""

    id: str | None
    features: Mapping[str, float]


class Ranker:
    """The ranking weights of a recommendation model; JSON in the bundle's `assets/ranker.json`."""

    def __init__(
        self,
        numbers: Sequence[str],
        mean: Sequence[float],
        scale: Sequence[float],
        popularity: Mapping[str, float],
        weights: Sequence[float],
        bias: float,
    ):
        self.numbers = tuple(numbers)
        self._mean = np.asarray(mean, np.float64)
        self._scale = np.asarray(scale, np.float64)
        self._popularity = dict(popularity)
        self._unseen = float(np.mean(list(popularity.values()))) if popularity else 0.0
        self.weights = np.asarray(weights, np.float64)
        self.bias = bias

    @property
    def feature_names(self) -> list[str]:
        """The columns of `features`, in order."""
        spread = [part for name in self.numbers for part in (name, f"{name}_distance")]
        return ["mean_cosine", "nearest_cosine", "newest_cosine", "has_history", "popularity", *spread]

    def features(
        self, history: Sequence[Item], history_vectors: Any, candidates: Sequence[Item], vectors: Any
    ) -> FloatArray:
        """(candidates, features). `*_vectors` are (n, dimensions) unit vectors in the order of their items."""
        columns = np.zeros((len(candidates), len(self.feature_names)))
        if history:
            cosines = np.asarray(vectors, np.float64) @ np.asarray(history_vectors, np.float64).T
            columns[:, 0] = cosines.mean(1)
            columns[:, 1] = cosines.max(1)
            columns[:, 2] = cosines[:, -1]
            columns[:, 3] = 1.0
        columns[:, 4] = [self._popularity.get(item.id or "", self._unseen) for item in candidates]
        if self.numbers:
            values = self._standardized(candidates)
            history_mean = self._standardized(history).mean(0) if history else np.zeros(len(self.numbers))
            columns[:, 5::2] = values
            columns[:, 6::2] = np.abs(values - history_mean) if history else 0.0
        return columns

    def logits(
        self, history: Sequence[Item], history_vectors: Any, candidates: Sequence[Item], vectors: Any
    ) -> FloatArray:
        """(candidates,): the log-odds that the user chooses the candidate. Arguments as in `features`."""
        logits: FloatArray = self.features(history, history_vectors, candidates, vectors) @ self.weights + self.bias
        return logits

    def score(
        self, history: Sequence[Item], history_vectors: Any, candidates: Sequence[Item], vectors: Any
    ) -> FloatArray:
        """(candidates,): the probability, 0 to 1, that the user chooses the candidate. Arguments as in `features`."""
        return probability(self.logits(history, history_vectors, candidates, vectors))

    def contributions(
        self, history: Sequence[Item], history_vectors: Any, candidates: Sequence[Item], vectors: Any
    ) -> Contributions:
        """What makes up `logits`. Arguments as in `features`.

        Of the cosines, the mean's is divided among the history's items, the nearest's and the newest's go to that item.
        A number's feature has its value and its distance from the history's mean.
        """
        weighted = self.features(history, history_vectors, candidates, vectors) * self.weights
        of_history = np.zeros((len(candidates), len(history)))
        if history:
            cosines = np.asarray(vectors, np.float64) @ np.asarray(history_vectors, np.float64).T
            of_history += self.weights[0] * cosines / len(history)
            of_history[np.arange(len(candidates)), cosines.argmax(1)] += weighted[:, 1]
            of_history[:, -1] += weighted[:, 2]
        return Contributions(
            history=of_history,
            features=weighted[:, 5::2] + weighted[:, 6::2],
            feature_names=self.numbers,
            item=weighted[:, 4],
            user=weighted[:, 3],
            base=self.bias,
        )

    def _standardized(self, items: Sequence[Item]) -> FloatArray:
        raw = np.array([[item.features.get(name, np.nan) for name in self.numbers] for item in items], np.float64)
        raw = raw.reshape(len(items), len(self.numbers))
        compressed = np.sign(raw) * np.log1p(np.abs(raw))  # prices and counts span orders of magnitude
        standardized: FloatArray = np.nan_to_num((compressed - self._mean) / self._scale)
        return np.clip(standardized, -5.0, 5.0)

    def to_asset(self) -> dict[str, Any]:
        return {
            "numbers": list(self.numbers),
            "mean": self._mean.tolist(),
            "scale": self._scale.tolist(),
            "popularity": self._popularity,
            "weights": self.weights.tolist(),
            "bias": self.bias,
        }

    @classmethod
    def from_asset(cls, asset: Mapping[str, Any] | None) -> Self:
        """Raises ValueError when the bundle was exported without its ranking weights."""
        if asset is None:
            raise ValueError("the bundle has no assets/ranker.json; train the recommendation task again")
        return cls(**asset)


def probability(logits: FloatArray) -> FloatArray:
    """The scores, 0 to 1, of logits of the same shape."""
    probabilities: FloatArray = 1.0 / (1.0 + np.exp(-logits))
    return probabilities
