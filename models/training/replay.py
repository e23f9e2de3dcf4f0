"""Experience replay: which old texts a continued training sees again, against catastrophic forgetting.

A model that is fine-tuned on new texts alone forgets the rest within one epoch. Replaying a balanced sample of its old
training texts is the simplest and most reliable remedy (Buzzega et al., 2020, https://arxiv.org/abs/2004.07211).
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


def mix_with_replay(new: Sequence[Example], old: Sequence[Example], recipe: Recipe) -> list[Example]:
    """All of `new`, `recipe.repeats` times, and the same number of `old` texts of each label, each at most once.

    A label gets `recipe.replay` old texts, or more where that would leave fewer than two old texts for each new one:
    with ten labels a small share of each is enough, with two most of their texts are needed. An old text that is among
    the new ones, whatever its case, width and spaces, is left out, since the newer label counts. The choice is seeded
    by `recipe.seed`; the order is arbitrary.
    """
    repeated = [*new] * recipe.repeats
    kept = not_corrected(new, old)
    return [*repeated, *balanced_sample(kept, recipe.replay, _OLD_FOR_EACH_NEW * len(repeated), recipe.seed)]


def not_corrected(new: Sequence[Example], old: Sequence[Example]) -> list[Example]:
    """The `old` examples whose text is not among the new ones."""
    new_keys = {same_text_key(example.text) for example in new}
    return [example for example in old if same_text_key(example.text) not in new_keys]
