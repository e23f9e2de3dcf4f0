"""How often a training passes over its texts."""

from __future__ import annotations

from pathlib import Path

from models.training.candidate import TrainingJob
from models.training.config import CONTINUED, Recipe
from models.training.families import family_of


def test_a_small_corpus_gets_more_epochs_and_a_large_one_those_of_the_recipe() -> None:
    assert [Recipe().epochs_of(examples) for examples in (0, 6, 117, 1280, 4000, 1_000_000)] == [120, 120, 30, 3, 3, 3]
    assert CONTINUED.epochs_of(10) == 1


def test_epochs_that_were_asked_for_are_what_is_done() -> None:
    family = family_of("intent")
    assert family.recipe(TrainingJob("intent", recipe=(("epochs", 2),)), Path()).epochs_of(10) == 2
    assert family.recipe(TrainingJob("intent"), Path()).epochs_of(10) == 120
