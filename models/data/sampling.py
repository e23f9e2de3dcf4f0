"""Samples of a corpus in which no label drowns the others."""

from __future__ import annotations

import random
from collections.abc import Iterable
from math import ceil

from models.data.dataset import Example


def balanced_sample(examples: Iterable[Example], per_label: int, min_total: int, seed: int) -> list[Example]:
    """The same number of examples of each label, or all that a label has, each at most once; label by label.

    That number is `per_label`, or more where the labels are so few that it would give fewer than `min_total` in all.
    """
    by_label: dict[str, list[Example]] = {}
    for example in examples:
        by_label.setdefault(example.label, []).append(example)
    each = max(per_label, ceil(min_total / max(1, len(by_label))))
    chosen = random.Random(seed)
    return [
        example
        for label in sorted(by_label)
        for example in chosen.sample(by_label[label], min(each, len(by_label[label])))
    ]
