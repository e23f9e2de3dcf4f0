"""Label-balanced sampling of a corpus."""

from __future__ import annotations

import random
from collections.abc import Iterable
from math import ceil

from models.data.dataset import Example


def balanced_sample(examples: Iterable[Example], per_label: int, min_total: int, seed: int) -> list[Example]:
    """The same number of examples of each label, or all of a label with fewer, without repetition; sorted by label.

    That number is `per_label`, or more if this would give fewer than `min_total` examples in all.
    """
    by_label: dict[str, list[Example]] = {}
    for example in examples:
        by_label.setdefault(example.label, []).append(example)
    count = max(per_label, ceil(min_total / max(1, len(by_label))))
    rng = random.Random(seed)
    return [
        example
        for label in sorted(by_label)
        for example in rng.sample(by_label[label], min(count, len(by_label[label])))
    ]
