"""How often the gate is wrong: `python -m tests.helpers.gate_power` draws pairs and counts what it accepts.

Each drawn pair differs by a known number of points in truth; what is seen of it on a holdout of a given size is chance.
docs/decisions/0013-gate.md quotes the output. `synthetic` also makes the evaluations of
tests/unit/models/evaluation/test_gate.py.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from models.evaluation.evaluate import Evaluation
from models.evaluation.gate import judge
from models.tasks.thresholds import Thresholds

Bools = NDArray[np.bool_]
HOLDOUTS = {330: (3, 0.88), 432: (27, 0.963), 3080: (77, 0.925)}
"""texts -> (labels, champion's accuracy): seed corpora of sentiment and of intent in scope, test split of Banking77"""
DISAGREEMENTS = (1, 2, 4, 6)  # points of texts that one of the two has right and the other wrong
DIFFERENCES = (1, 0, -1, -2, -3)  # points, candidate minus champion


def synthetic(right: Bools, labels: int, rng: np.random.Generator, sharpen: float = 0.0) -> Evaluation:
    """An evaluation that is right where `right` (texts,) says so, on texts whose labels take turns.

    It is calibrated: its confidence is spread around its accuracy. `sharpen` moves it that share of the way to 1.
    """
    texts = len(right)
    truth = np.arange(texts) % labels
    answer = np.where(right, truth, (truth + rng.integers(1, labels, texts)) % labels)
    accuracy = float(right.mean())
    confidence = accuracy + rng.uniform(-1, 1, texts) * min(1 - accuracy, accuracy - 0.55) * 0.95
    confidence += sharpen * (1 - confidence)
    probabilities = np.repeat(((1 - confidence) / (labels - 1))[:, None], labels, axis=1)
    probabilities[np.arange(texts), answer] = confidence
    names = tuple(f"label {i}" for i in range(labels))
    return Evaluation(names, tuple(names[t] for t in truth), probabilities.astype(np.float32))


def draw(
    texts: int, accuracy: float, difference: float, disagreement: float, rng: np.random.Generator
) -> tuple[Bools, Bools]:
    """Which texts champion and candidate have right; shares, not points. Every text falls independently."""
    lost, won = (disagreement - difference) / 2, (disagreement + difference) / 2
    fate = rng.choice(4, texts, p=[lost, won, accuracy - lost, 1 - accuracy - won])
    return (fate == 0) | (fate == 2), (fate == 1) | (fate == 2)


def accepted(
    texts: int, difference: float, disagreement: float, draws: int, gain: bool, thresholds: Thresholds
) -> float:
    """The share of `draws` pairs whose candidate the whole gate accepts; difference and disagreement in points.

    Without feedback, or with `gain`: 100 texts of it, of which the champion has 60 right and the candidate 90.
    """
    labels, accuracy = HOLDOUTS[texts]
    rng = np.random.default_rng(0)
    sets = [np.arange(100) >= wrong for wrong in (40, 10)] if gain else []
    newest = [synthetic(right, labels, rng) for right in sets]
    count = 0
    for _ in range(draws):
        before, after = draw(texts, accuracy, difference / 100, disagreement / 100, rng)
        texts_seed = int(rng.integers(2**32))  # both find the same texts hard, as a model and its fine-tuned copy do
        champion, candidate = (synthetic(r, labels, np.random.default_rng(texts_seed)) for r in (before, after))
        old, new = {"holdout": champion}, {"holdout": candidate}
        if gain:
            old["feedback"], new["feedback"] = newest
        count += judge(old, new, thresholds).accepted
    return count / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=400, help="pairs for each cell")
    parser.add_argument("--gain", action="store_true", help="the candidate is also proven better on feedback")
    parser.add_argument("--margin", type=float, default=Thresholds().margin, help="points, as in Thresholds")
    options = parser.parse_args()
    thresholds = Thresholds(margin=options.margin)
    print("accepted, of candidates whose true difference from the champion is")
    print("| texts | disagree on | " + " | ".join(f"{d:+d} points" if d else "none" for d in DIFFERENCES) + " |")
    print("|---" * (len(DIFFERENCES) + 2) + "|")
    for texts in HOLDOUTS:
        for disagreement in DISAGREEMENTS:
            cells = [
                f"{accepted(texts, d, disagreement, options.draws, options.gain, thresholds):.1%}"
                if abs(d) <= disagreement
                else ""
                for d in DIFFERENCES
            ]
            print(f"| {texts} | {disagreement} % | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
