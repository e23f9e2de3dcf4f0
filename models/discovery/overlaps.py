"""Labels that overlap: pairs that people corrected into each other, or between which the champion cannot decide.

Two labels that mean nearly the same cost accuracy whatever is labelled next: merge them, or say what each is for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from models.feedback.types import GivenLabel

MIN_SHARE = 0.1
"""of the corrections of two labels that change one into the other, or of their probability that is on the wrong one"""
_MIN_CORRECTIONS = 3
_CONFIDENCE = 0.95
_MIN_TEXTS = 10  # of both labels in the holdout

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two labels, in alphabetical order. None where there is nothing to judge by."""

    labels: tuple[str, str]
    corrections: int
    """that changed one into the other"""
    of_corrections: int
    """all labels that people gave which are one of the two"""
    holdout: float | None
    """mean probability that the champion gives to the one on holdout texts of the other"""
    holdout_texts: int

    @property
    def share(self) -> float:
        """The larger of both shares."""
        return max(self.corrections / max(self.of_corrections, 1), self.holdout or 0.0)

    @property
    def sentence(self) -> str:
        one, other = self.labels
        found = []
        if self.corrections:
            found.append(f"{self.corrections:,} of {self.of_corrections:,} corrections change one into the other")
        if self.holdout is not None:
            of = f"on {self.holdout_texts:,} held-out texts of the two"
            found.append(f"{of}, the champion gives {self.holdout:.0%} to the wrong one")
        return f"{one} and {other}: {'; '.join(found)}."


def overlapping(
    given: Sequence[GivenLabel], names: Sequence[str], truth: Sequence[str], probabilities: Floats
) -> list[Overlap]:
    """The pairs that overlap, the worst first.

    `given` are labels from people; those that curation quarantined do not count. `probabilities` are the champion's on
    its holdout, (texts, labels `names`), and `truth` that holdout's labels.
    """
    judged = [label for label in given if label.trusted and label.predicted is not None]
    of_label = Counter(label.label for label in judged)
    changed = Counter(_pair(str(label.predicted), label.label) for label in judged if label.predicted != label.label)
    masses = _masses(names, truth, probabilities)
    found = []
    for pair in changed.keys() | masses.keys():
        mass, texts = masses.get(pair, (None, 0))
        overlap = Overlap(pair, changed[pair], of_label[pair[0]] + of_label[pair[1]], mass, texts)
        if (mass is not None and mass >= MIN_SHARE) or _often_changed(overlap):
            found.append(overlap)
    return sorted(found, key=lambda overlap: (-overlap.share, overlap.labels))


def _often_changed(overlap: Overlap) -> bool:
    """Whether, with 95 % confidence, more than half of `MIN_SHARE` is changed, and `MIN_SHARE` was seen to be."""
    wrong, of = overlap.corrections, overlap.of_corrections
    if wrong < _MIN_CORRECTIONS or wrong / of < MIN_SHARE:
        return False
    from scipy.stats import binomtest  # many megabytes, which a serving process must not have

    low = binomtest(wrong, of, alternative="greater").proportion_ci(_CONFIDENCE, method="wilson").low
    return float(low) >= MIN_SHARE / 2


def _masses(
    names: Sequence[str], truth: Sequence[str], probabilities: Floats
) -> dict[tuple[str, str], tuple[float, int]]:
    """By pair: the mean probability of the other label on texts of one, and how many texts; not of pairs with few."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(truth):
        rows[label].append(row)
    number = {name: i for i, name in enumerate(names)}
    sums = {label: probabilities[of].sum(0) for label, of in rows.items() if label in number}
    found = {}
    for one, other in combinations(sorted(sums), 2):
        texts = len(rows[one]) + len(rows[other])
        if texts >= _MIN_TEXTS:
            mass = sums[one][number[other]] + sums[other][number[one]]
            found[one, other] = float(mass) / texts, texts
    return found


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)
