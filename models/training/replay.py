"""Which old texts a continued training sees again, so that learning new answers does not unlearn old ones.

A model that is fine-tuned on new texts alone forgets the rest within one epoch. Replaying a balanced sample of what it
knows is the simplest remedy and the most reliable one (Buzzega et al., 2020, https://arxiv.org/abs/2004.07211).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.data.dataset import Example
from models.data.sampling import balanced_sample
from models.text import same_text_key

if TYPE_CHECKING:
    from models.training.config import Recipe

_OLD_FOR_EACH_NEW = 2


def mix(new: Sequence[Example], old: Sequence[Example], recipe: Recipe) -> list[Example]:
    """All of `new`, `recipe.repeats` times, and the same number of `old` texts of each label, each at most once.

    A label gets `recipe.replay` old texts, or more where that would leave fewer than two old texts for each new one:
    ten labels need a small share of each to stay, two need most of what they have. An old text that is among the new
    ones, whatever its case, width and spaces, is left out: the newer label counts. The choice is seeded by
    `recipe.seed`; the order carries no meaning.
    """
    renewed = {same_text_key(example.text) for example in new}
    repeated = [*new] * recipe.repeats
    kept = [example for example in old if same_text_key(example.text) not in renewed]
    return [*repeated, *balanced_sample(kept, recipe.replay, _OLD_FOR_EACH_NEW * len(repeated), recipe.seed)]
