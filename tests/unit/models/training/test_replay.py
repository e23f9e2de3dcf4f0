"""Replay: which old texts a continued training shows beside the new ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from models.data.dataset import Example
from models.training.replay import mix_with_replay
from tests.helpers.replay import RECIPE, examples


def test_all_that_is_new_is_there_and_the_old_labels_in_equal_numbers() -> None:
    new, old = examples("new", 3), [*examples("large", 90), *examples("small", 20), *examples("tiny", 2)]
    mixed = mix_with_replay(new, old, RECIPE)
    assert Counter(e.label for e in mixed) == {"new": 6, "large": 5, "small": 5, "tiny": 2}
    assert len(set(mixed)) == 3 + 5 + 5 + 2
    assert set(new) < set(mixed) <= {*new, *old}


def test_there_are_two_old_texts_for_each_new_one() -> None:
    mixed = mix_with_replay(examples("new", 30), [*examples("one", 90), *examples("two", 90)], RECIPE)
    assert Counter(e.label for e in mixed) == {"new": 60, "one": 60, "two": 60}


def test_the_choice_is_seeded() -> None:
    new, old = examples("new", 3), examples("old", 50)
    assert (
        mix_with_replay(new, old, RECIPE)
        == mix_with_replay(new, old, RECIPE)
        != mix_with_replay(new, old, replace(RECIPE, seed=8))
    )


def test_a_text_that_was_corrected_is_not_replayed_with_its_old_label() -> None:
    mixed = mix_with_replay(
        [Example("  Hi THERE", "greet")], [Example("hi there", "leave"), Example("bye", "leave")], RECIPE
    )
    assert set(mixed) == {("  Hi THERE", "greet"), ("bye", "leave")}
