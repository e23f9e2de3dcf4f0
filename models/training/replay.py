"""Which old texts a continued training sees again, so that learning new answers does not unlearn old ones.

A model that is fine-tuned on new texts alone forgets the rest within one epoch. Replaying a balanced sample of what it
knows is the simplest remedy and the most reliable one (Buzzega et al., 2020, https://arxiv.org/abs/2004.07211).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from models.data.dataset import Example

if TYPE_CHECKING:
    from models.training.config import Recipe

_OLD_FOR_EACH_NEW = 2


def mix(new: Sequence[Example], old: Sequence[Example], recipe: Recipe) -> list[Example]:
    """All of `new`, `recipe.repeats` times, and the same number of `old` texts of each label, each at most once.

    A label gets `recipe.replay` old texts, or more where that would leave fewer than two old texts for each new one:
    ten labels need a small share of each to stay, two need most of what they have. An old text that is among the new
    ones, whatever its case and spaces, is left out: the newer label counts. The choice is seeded by `recipe.seed`;
    the order carries no meaning.
    """
    by_label: dict[str, list[Example]] = {}
    renewed = {_normal(example.text) for example in new}
    for example in old:
        if _normal(example.text) not in renewed:
            by_label.setdefault(example.label, []).append(example)
    repeated = [*new] * recipe.repeats
    share = max(recipe.replay, ceil(_OLD_FOR_EACH_NEW * len(repeated) / max(1, len(by_label))))
    chosen = random.Random(recipe.seed)
    replayed = [
        example
        for label in sorted(by_label)
        for example in chosen.sample(by_label[label], min(share, len(by_label[label])))
    ]
    return [*repeated, *replayed]


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
