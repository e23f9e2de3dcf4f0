"""What a model puts out, by its kind: logits of labels, or unit vectors. All that an export asks of a kind is here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from export.bundle import Kind, Parity, Precision
from export.errors import ParityError

# int8 may move this share of holdout labels against PyTorch fp32, and still be the same model for its users: the
# labels that move are those that were nearly tied. fp32 and fp16 must move fewer.
MAX_LABELS_MOVED = {"int8": 0.03, "fp16": 0.005, "fp32": 0.0}
# A ranker has no labels; its vectors must point the same way, on average. A single text may stray further: the weights
# of the ranking, and its metrics, come from the exported vectors and not from the checkpoint's.
MIN_MEAN_COSINE = 0.97

Output = NDArray[np.float32]


class Head(ABC):
    """The last part of one kind of model."""

    normalize: ClassVar[bool]
    """whether the checkpoint normalizes its output: `normalize` of export.checkpoint.TextModel"""

    @abstractmethod
    def width(self, labels: int, found: int) -> int:
        """How many numbers a text must get from a bundle of so many labels, where it got `found`."""

    @abstractmethod
    def scores(self, output: Output) -> Output:
        """What clients see of outputs, (texts, width): the same shape."""

    @abstractmethod
    def agreement(self, expected: Output, alone: Output, together: Output) -> dict[str, Any]:
        """The fields of Parity that compare answers rather than numbers.

        Outputs of the checkpoint, of the exported model for each text alone, and for texts in batches: (texts, width).
        """

    @abstractmethod
    def check(self, parity: Parity, precision: Precision) -> None:
        """Raises ParityError when the exported model answers otherwise than the checkpoint."""


class LabelHead(Head):
    """A classifier's: logits, of which clients see the probabilities."""

    normalize = False

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
        moved = parity.labels_moved or 0.0
        if moved > MAX_LABELS_MOVED[precision]:
            raise ParityError(
                f"{precision} export moves {moved:.1%} of the holdout's labels; "
                f"at most {MAX_LABELS_MOVED[precision]:.1%} is allowed. Calibrate on more texts."
            )


class VectorHead(Head):
    """A ranker's tower: unit vectors of as many dimensions as it was trained with."""

    normalize = True

    def width(self, labels: int, found: int) -> int:
        return found

    def scores(self, output: Output) -> Output:
        return output

    def agreement(self, expected: Output, alone: Output, together: Output) -> dict[str, Any]:
        cosines = (alone * expected).sum(1)
        return {"mean_cosine": round(float(cosines.mean()), 5), "min_cosine": round(float(cosines.min()), 5)}

    def check(self, parity: Parity, precision: Precision) -> None:
        if parity.mean_cosine is not None and parity.mean_cosine < MIN_MEAN_COSINE:
            raise ParityError(f"The exported vectors stray from the checkpoint's: cosine {parity.mean_cosine}.")


_HEADS: Mapping[Kind, Head] = {"classifier": LabelHead(), "ranker": VectorHead()}


def head_of(kind: Kind) -> Head:
    """The head of a manifest's `kind`."""
    return _HEADS[kind]


def softmax(logits: Output) -> Output:
    """Row-wise softmax of (n, labels)."""
    # The ufuncs themselves: their methods on arrays go through Python first.
    exponent: Output = np.exp(logits - np.maximum.reduce(logits, axis=-1, keepdims=True))
    exponent /= np.add.reduce(exponent, axis=-1, keepdims=True)
    return exponent
