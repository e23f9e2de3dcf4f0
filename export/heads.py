"""The heads of the kinds of models: logits or projections. All that an export needs to know of a kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.bundle import Kind, Parity, Precision
from export.errors import ParityError

# The share of all labels that may differ from PyTorch fp32. Labels that differ are those that were nearly tied, so
# int8 is still the same model for its users. fp32 and fp16 must differ less.
MAX_LABELS_MOVED = {"int8": 0.03, "fp16": 0.005, "fp32": 0.001}
# The holdout is a sample of these texts, and may be small: an export is refused when a share that is allowed would
# move as many of its labels with a probability below this. docs/decisions/0033-any-corpus.md
_SIGNIFICANCE = 0.05
# For a ranker, the mean cosine with the checkpoint's projections. Single texts may differ more, since the vectors of
# known items and the metrics are computed with the exported model.
MIN_MEAN_COSINE = 0.97

Output = NDArray[np.float32]


class Head(ABC):
    """The output of one kind of model."""

    @abstractmethod
    def width(self, labels: int, found: int) -> int:
        """The expected width of an output for a bundle with `labels` labels; `found` is the actual width."""

    @abstractmethod
    def scores(self, output: Output) -> Output:
        """Outputs, (texts, width), to the scores that clients get, in the same shape."""

    @abstractmethod
    def agreement(self, expected: Output, alone: Output, together: Output) -> dict[str, Any]:
        """The fields of Parity that compare predictions.

        All are (texts, width): `expected` of the checkpoint, `alone` of the exported model one text at a time,
        `together` in batches.
        """

    @abstractmethod
    def check(self, parity: Parity, precision: Precision) -> None:
        """Raises ParityError when predictions of the exported model differ too much from the checkpoint's."""


class LabelHead(Head):
    """A classifier's head: logits; scores are the probabilities."""

    def width(self, labels: int, found: int) -> int:
        return labels

    def scores(self, output: Output) -> Output:
        return softmax(output)

    def agreement(self, expected: Output, alone: Output, together: Output) -> dict[str, Any]:
        return {
            "labels_moved": round(float((alone.argmax(1) != expected.argmax(1)).mean()), 5),
            "labels_moved_by_batch": int((alone.argmax(1) != together.argmax(1)).sum()),
        }

    def check(self, parity: Parity, precision: Precision) -> None:
        if moves_too_many_labels(parity, precision):
            remedy = " Export it with --precision fp32, or train on more texts." if precision != "fp32" else ""
            raise ParityError(
                f"{precision} export moves {parity.labels_moved:.1%} of the holdout's {parity.texts} labels, more than "
                f"chance explains if {MAX_LABELS_MOVED[precision]:.1%} of all are moved, which is allowed.{remedy}"
            )


class ProjectionHead(Head):
    """A ranker's head: projections of a text, which stand in for an item without behaviour."""

    def width(self, labels: int, found: int) -> int:
        return found

    def scores(self, output: Output) -> Output:
        return output

    def agreement(self, expected: Output, alone: Output, together: Output) -> dict[str, Any]:
        norms = np.linalg.norm(alone, axis=1) * np.linalg.norm(expected, axis=1)
        cosines = (alone * expected).sum(1) / np.maximum(norms, 1e-9)
        return {"mean_cosine": round(float(cosines.mean()), 5), "min_cosine": round(float(cosines.min()), 5)}

    def check(self, parity: Parity, precision: Precision) -> None:
        if parity.mean_cosine is not None and parity.mean_cosine < MIN_MEAN_COSINE:
            raise ParityError(f"The exported projections stray from the checkpoint's: cosine {parity.mean_cosine}.")


def moves_too_many_labels(parity: Parity, precision: Precision) -> bool:
    """Whether significantly more labels than MAX_LABELS_MOVED were moved (exact binomial test, one-sided)."""
    share, texts, allowed = parity.labels_moved or 0.0, parity.texts, MAX_LABELS_MOVED[precision]
    if share <= allowed or not texts:  # bundles of other tools may not say how many texts there were
        return share > allowed
    from scipy.stats import binom  # where models are exported or judged; serving does without it

    return bool(binom.sf(round(share * texts) - 1, texts, allowed) < _SIGNIFICANCE)


_HEADS: Mapping[Kind, Head] = {"classifier": LabelHead(), "ranker": ProjectionHead()}


def head_of(kind: Kind) -> Head:
    """The head of a manifest's `kind`."""
    return _HEADS[kind]


def softmax(logits: Output) -> Output:
    """Row-wise softmax of (n, labels)."""
    # ufuncs directly, since array methods have Python overhead.
    exponent: Output = np.exp(logits - np.maximum.reduce(logits, axis=-1, keepdims=True))
    exponent /= np.add.reduce(exponent, axis=-1, keepdims=True)
    return exponent
