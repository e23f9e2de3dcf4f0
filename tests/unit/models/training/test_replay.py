"""Replay: which old texts a continued training shows beside the new ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from models.data.dataset import Example
from models.training.replay import mix_with_replay

if TYPE_CHECKING:
    from models.training.config import Recipe


@pytest.fixture
def recipe() -> Recipe:
    from models.training.config import Recipe

    return Recipe(replay=5, repeats=2)


def examples(label: str, count: int) -> list[Example]:
    return [Example(f"{label} number {i}", label) for i in range(count)]


def test_all_that_is_new_is_there_and_the_old_labels_in_equal_numbers(recipe: Recipe) -> None:
    new, old = examples("new", 3), [*examples("large", 90), *examples("small", 20), *examples("tiny", 2)]
    mixed = mix_with_replay(new, old, recipe)
    assert Counter(e.label for e in mixed) == {"new": 6, "large": 5, "small": 5, "tiny": 2}
    assert len(set(mixed)) == 3 + 5 + 5 + 2
    assert set(new) < set(mixed) <= {*new, *old}


def test_there_are_two_old_texts_for_each_new_one(recipe: Recipe) -> None:
    mixed = mix_with_replay(examples("new", 30), [*examples("one", 90), *examples("two", 90)], recipe)
    assert Counter(e.label for e in mixed) == {"new": 60, "one": 60, "two": 60}


def test_the_choice_is_seeded(recipe: Recipe) -> None:
    new, old = examples("new", 3), examples("old", 50)
    assert (
        mix_with_replay(new, old, recipe)
        == mix_with_replay(new, old, recipe)
        != mix_with_replay(new, old, replace(recipe, seed=8))
    )


def test_a_text_that_was_corrected_is_not_replayed_with_its_old_label(recipe: Recipe) -> None:
    mixed = mix_with_replay(
        [Example("  Hi THERE", "greet")], [Example("hi there", "leave"), Example("bye", "leave")], recipe
    )
    assert set(mixed) == {("  Hi THERE", "greet"), ("bye", "leave")}
