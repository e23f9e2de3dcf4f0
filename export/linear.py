"""The linear reader: a linear model over a text's token n-grams, microseconds where the encoder takes milliseconds.

It reads the token ids that the server has anyway. Its files in a bundle, `linear/*.npy`, are mapped by all replicas,
which share one copy:

    keys      (n-grams,) int64, sorted: the n-grams, each as one number
    idf       (n-grams,) float32: their inverse document frequencies
    weights   (n-grams, labels) float16: the coefficients
    bias      (labels,) float32

models/training/linear_reader.py trains them. In a ranker's first version, which has no encoder, the labels are a text's
projections (models/training/first_ranker.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.bundle import LINEAR, TOKENIZER, Bundle, LinearRecord, mapped_array
from export.errors import BundleError

ARRAYS = ("keys", "idf", "weights", "bias")
_PAIR = np.int64(1) << 31  # above all token ids

Keys = NDArray[np.int64]
Floats = NDArray[np.float32]


class Features(NamedTuple):
    """The known n-grams of one text: their rows in the vocabulary, and the values of these features."""

    rows: NDArray[np.intp]
    values: Floats
    """of unit length, unless there are none"""
    known: float
    """the share of the text's n-grams that are in the vocabulary, 0 to 1"""


class Reading(NamedTuple):
    """What the linear reader makes of one text."""

    logits: Floats
    """(labels,)"""
    known: float
    """as in Features"""


class Vocabulary:
    """The n-grams that a linear reader knows, weighted by TF-IDF. `keys` are sorted; both are (n-grams,).

    `max_ngram` is 1 for tokens, 2 for tokens and pairs of neighbours. `sublinear`: an n-gram that occurs n times in a
    text counts as 1 + log(n), instead of n.
    """

    def __init__(self, keys: Keys, idf: Floats, *, max_ngram: int, sublinear: bool):
        self.keys, self.idf, self.max_ngram, self.sublinear = keys, idf, max_ngram, sublinear

    def features(self, ids: Sequence[int]) -> Features:
        """The features of one text, given its token ids."""
        keys = ngram_keys(ids, self.max_ngram)
        rows = self.keys.searchsorted(keys)
        rows = rows[self.keys.take(rows, mode="clip") == keys]
        known = rows.size / max(keys.size, 1)
        values = self.idf.take(rows)
        found = rows.tolist()
        if self.sublinear and len(set(found)) < len(found):
            counts = Counter(found)
            rows = np.array(list(counts), np.intp)
            values = self.idf.take(rows) * (1 + np.log(np.array(list(counts.values()), np.float32)))
        values /= math.sqrt(values.dot(values)) or 1.0  # for so few numbers, `dot` is twice as fast as `@`
        return Features(rows, values, known)


def ngram_keys(ids: Sequence[int], max_ngram: int) -> Keys:
    """The n-grams of a text, each as one number: its tokens and, with `max_ngram` 2, pairs of neighbours.

    `ids` are those of export/tokenizer.py. The special tokens at its ends are in the first and the last pair only.
    """
    tokens = np.array(ids, np.int64)
    if max_ngram == 1:
        return tokens[1:-1]
    # A pair's number is above those of all tokens, since its first factor is at least 1.
    return np.concatenate((tokens[1:-1], (tokens[:-1] + 1) * _PAIR + tokens[1:]))


class LinearReader:
    """Computes logits from token ids. An answer does not depend on the other texts of a batch. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary, weights: NDArray[np.float16], bias: Floats):
        self.vocabulary, self.weights, self.bias = vocabulary, weights, bias

    @classmethod
    def of_bundle(cls, bundle: Bundle, record: LinearRecord) -> LinearReader:
        """The bundle's reader, its arrays mapped. Raises BundleError when they do not fit each other or the bundle."""
        files = bundle.manifest.files
        if record.tokenizer != files[TOKENIZER]:
            raise BundleError(
                f"The bundle {bundle.path} is damaged: its linear reader was trained with another tokenizer. "
                "Export the model again."
            )
        for name in ARRAYS:
            if f"{LINEAR}/{name}.npy" not in files:
                raise BundleError(f"The bundle {bundle.path} is incomplete: its manifest lists no {LINEAR}/{name}.npy.")
        labels = len(bundle.manifest.labels) if bundle.manifest.kind == "classifier" else None
        return cls.load(bundle.path / LINEAR, record, labels)

    @classmethod
    def load(cls, folder: Path, record: LinearRecord, labels: int | None) -> LinearReader:
        """The reader whose arrays are in `folder`, mapped. Raises BundleError when they are no reader's of `labels`.

        `labels` is None for vectors of any width.
        """
        try:
            keys, idf, weights, bias = (mapped_array(folder / f"{name}.npy") for name in ARRAYS)
        except (OSError, ValueError) as error:
            raise BundleError(
                f"The linear reader in {folder} cannot be read: {error}. Export the model again."
            ) from error
        if why := _misfit(keys, idf, weights, bias, bias.size if labels is None else labels):
            raise BundleError(f"The linear reader in {folder} is damaged: {why}. Export the model again.")
        vocabulary = Vocabulary(keys, idf, max_ngram=record.max_ngram, sublinear=record.sublinear)
        return cls(vocabulary, weights, bias)

    def save(self, folder: Path) -> None:
        """Write the arrays to `folder`, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self.arrays.items():
            np.save(folder / f"{name}.npy", array)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"keys": self.vocabulary.keys, "idf": self.vocabulary.idf, "weights": self.weights, "bias": self.bias}

    def read(self, ids: Sequence[int]) -> Reading:
        """The reading of one text, given its token ids."""
        rows, values, known = self.vocabulary.features(ids)
        return Reading(values.dot(self.weights.take(rows, axis=0).astype(np.float32)) + self.bias, known)


def _misfit(
    keys: NDArray[Any], idf: NDArray[Any], weights: NDArray[Any], bias: NDArray[Any], labels: int
) -> str | None:
    """Why the arrays are not those of a reader of `labels` labels, as the end of a sentence; None when they are."""
    shapes = tuple(array.shape for array in (keys, idf, weights, bias))
    if shapes != ((keys.size,), (keys.size,), (keys.size, labels), (labels,)) or not keys.size:
        return f"its arrays have the shapes {shapes}, for {labels} labels"
    types = ", ".join(str(array.dtype) for array in (keys, idf, weights, bias))
    if types != "int64, float32, float16, float32":
        return f"its arrays have the types {types}"
    if (keys[1:] <= keys[:-1]).any():
        return "its n-grams are not sorted"
    return None if all(np.isfinite(array).all() for array in (idf, weights, bias)) else "its weights are not finite"
