"""Which sign tells best that a text is out of scope? Compares the rule of models/tasks/intent.py with thresholds.

    python -m models.evaluation.handoff BUNDLE [FILE]

prints it for a version of intent, on the holdout of a labelled file or of the task's seed corpus: each sign's threshold
is chosen on one half of the texts and judged on the other, and the other way round.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from export.bundle import Bundle
from export.heads import softmax
from export.model import Model
from models.data.dataset import load_dataset
from models.tasks.base import TextRequest
from models.tasks.intent import OUT_OF_SCOPE, Intent

Values = NDArray[np.floating]
Flags = NDArray[np.bool_]


class Handed(NamedTuple):
    """Shares, 0 to 1: of texts out of scope that are handed to a person, and of those in scope that are not."""

    caught: float
    kept: float

    @property
    def balanced(self) -> float:
        return (self.caught + self.kept) / 2

    @classmethod
    def of(cls, handed: Flags, outside: Flags) -> Handed:
        return cls(float(handed[outside].mean()), float((~handed[~outside]).mean()))


class Sign(NamedTuple):
    """How well one sign tells texts out of scope from others."""

    auroc: float
    handed: Handed
    """by thresholds, each chosen on the half of the texts that it does not judge"""


def signs_of(model: Model, texts: Sequence[str]) -> dict[str, Values]:
    """By the sign's name: a value for each text, (texts,), that is high for texts out of scope."""
    outputs = model.outputs(texts)
    if outputs.parts is None or model.readers is None:
        raise ValueError("the bundle has no linear reader")
    number = model.bundle.manifest.labels.index(OUT_OF_SCOPE)
    probabilities = softmax(outputs.final).astype(np.float64)
    intents = np.delete(probabilities, number, axis=1)
    known = [model.readers.linear.read(row.ids).known for row in model.encoder.encode(texts)]
    return {
        "p(out of scope)": probabilities[:, number],
        "1 - highest probability": 1 - probabilities.max(axis=1),
        "1 - highest of an intent": 1 - intents.max(axis=1),
        "entropy": _entropy(probabilities),
        "entropy over intents": _entropy(intents / intents.sum(axis=1, keepdims=True)),
        "energy": -logsumexp(outputs.final, axis=1),
        "energy over intents": -logsumexp(np.delete(outputs.final, number, axis=1), axis=1),
        "highest logit of an intent": -np.delete(outputs.final, number, axis=1).max(axis=1),
        "unknown n-grams": 1 - np.array(known),
    }


def judge(value: Values, outside: Flags) -> Sign:
    """The sign with these values, for texts of which those `outside` are out of scope."""
    handed = np.zeros(len(value), bool)
    half = np.arange(len(value)) % 2 == 0
    for chosen in (half, ~half):
        handed[~chosen] = value[~chosen] >= best_threshold(value[chosen], outside[chosen])
    return Sign(float(roc_auc_score(outside, value)), Handed.of(handed, outside))


def best_threshold(value: Values, outside: Flags) -> float:
    """The value from which texts are best handed off, by the mean of the two shares."""
    candidates = np.unique(value)
    return float(max(candidates, key=lambda threshold: Handed.of(value >= threshold, outside).balanced))


def by_rule(model: Model, texts: Sequence[str]) -> Mapping[str, Flags]:
    """What the task hands off, (texts,): for its label alone, and for its score too."""
    task = Intent(model.bundle)
    request = TextRequest(texts=list(texts))
    predictions = task.decode(request, task.activate(model.predict(texts)), [False] * len(texts))
    reasons = [prediction.get("reason") for prediction in predictions]
    return {
        "the label, by majority": np.array([reason == "out_of_scope" for reason in reasons]),
        "the label, or a score under 0.5": np.array(
            [reason in ("out_of_scope", "low_confidence") for reason in reasons]
        ),
    }


def _entropy(probabilities: Values) -> Values:
    found: Values = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1)
    return found


def main(bundle: str, file: str | None = None) -> None:
    model = Model.open(Bundle.open(bundle))
    holdout = load_dataset("intent", Path(file) if file else None).holdout
    texts, outside = [one.text for one in holdout], np.array([one.label == OUT_OF_SCOPE for one in holdout])
    table = Table(title=f"{outside.sum()} texts out of scope, {(~outside).sum()} in scope")
    for column in ("", "AUROC", "caught", "kept", "balanced"):
        table.add_column(column, justify="right" if column else "left")
    for name, handed in by_rule(model, texts).items():
        table.add_row(name, "", *_shown(Handed.of(handed, outside)))
    for name, value in signs_of(model, texts).items():
        sign = judge(value, outside)
        table.add_row(name, f"{sign.auroc:.3f}", *_shown(sign.handed))
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def _shown(handed: Handed) -> list[str]:
    return [f"{share:.1%}" for share in (handed.caught, handed.kept, handed.balanced)]


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
