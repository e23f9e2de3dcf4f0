"""The confusion matrix of a classifier: a table of what occurred, and a picture of bounded size."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PICTURE, TABLE = "confusion_matrix.png", "confusion_matrix.csv"
MAX_SHOWN_LABELS = 60  # in a picture of 2,100 pixels a side, with 18 MB in memory
_MAX_NAME = 32
_MIN_SHARE = 0.005  # of a row; smaller ones are not written into the picture


class Confusion(NamedTuple):
    """The labels of a model, and the true and the predicted label of each held-out example."""

    labels: list[str]
    truth: list[str]
    predicted: list[str]

    def counts(self) -> Counter[tuple[str, str]]:
        """(true, predicted) label -> examples; only what occurred, at most one entry an example."""
        return Counter(zip(self.truth, self.predicted, strict=True))

    def shown_labels(self) -> list[str]:
        """All labels, sorted; of more than MAX_SHOWN_LABELS those that are confused most often."""
        if len(self.labels) <= MAX_SHOWN_LABELS:
            return sorted(self.labels)
        errors: Counter[str] = Counter()
        for pair, examples in self.counts().items():
            if pair[0] != pair[1]:
                errors.update(dict.fromkeys(pair, examples))
        frequent = Counter(self.truth)
        order = sorted(self.labels, key=lambda label: (-errors[label], -frequent[label], label))
        return sorted(order[:MAX_SHOWN_LABELS])


def write_table(confusion: Confusion, folder: Path) -> None:
    """Write `confusion_matrix.csv`, the nonzero cells, the most frequent errors first, then what is right."""
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(("true", "predicted", "examples"))
        for (true, said), examples in sorted(
            confusion.counts().items(), key=lambda cell: (cell[0][0] == cell[0][1], -cell[1], cell[0])
        ):
            writer.writerow((true, said, examples))


def write_picture(confusion: Confusion, folder: Path) -> None:
    """Write `confusion_matrix.png`: each row (true label) normalized to 1, labels as in `shown_labels`."""
    from matplotlib.figure import Figure

    shown = confusion.shown_labels()
    total, counts = Counter(confusion.truth), confusion.counts()
    at = {label: i for i, label in enumerate(shown)}
    matrix = np.zeros((len(shown), len(shown)))
    for (true, said), examples in counts.items():
        if true in at and said in at:
            matrix[at[true], at[said]] = examples / total[true]
    side = max(4.0, 0.32 * len(shown) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes: Any = figure.subplots()
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    names = [label if len(label) <= _MAX_NAME else label[:_MAX_NAME] + "…" for label in shown]
    # A label is text: `$` in it does not begin a formula.
    axes.set_xticks(range(len(shown)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(shown)), names, parse_math=False)
    rest = len(confusion.labels) - len(shown)
    title = f"holdout; the {len(shown)} labels confused most, {rest:,} more in {TABLE}" if rest > 0 else "holdout"
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for i, j in zip(*np.nonzero(matrix >= _MIN_SHARE), strict=True):
        axes.text(j, i, f"{matrix[i, j]:.0%}", ha="center", va="center", fontsize=6,
                  color="white" if matrix[i, j] > 0.5 else "black")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the font lacks letters of many scripts: they are drawn as boxes
        figure.savefig(folder / PICTURE)
