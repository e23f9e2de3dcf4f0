"""What a training is given: examples, labels, lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models.data.dataset import Example, load_dataset
from tests.helpers.own_corpus import CORRECTIONS

if TYPE_CHECKING:
    from models.training.config import Recipe


@pytest.fixture
def recipe() -> Recipe:
    from models.training.config import Recipe

    return Recipe(replay=5, repeats=2)


def examples(label: str, count: int) -> list[Example]:
    return [Example(f"{label} number {i}", label) for i in range(count)]


def test_a_lesson_says_which_labels_it_shows_more_often_than_the_data_has_them(recipe: Recipe) -> None:
    from models.training.training_set import TrainingSet

    corpus = load_dataset("sentiment")
    corpus = corpus._replace(train=[*examples("few", 4), *examples("many", 50)])
    new = [*examples("new", 6), Example("a text of few", "few")]
    training_set = TrainingSet.of_corrections(corpus, "1", ["few", "many", "unseen"], new, (), recipe)
    assert training_set.labels == ["few", "many", "new", "unseen"]
    assert training_set.excess == {"new": 2, "few": (2 * 1 + 4) / 5, "many": 14 / 50}


def test_the_order_of_the_corrections_is_not_part_of_their_fingerprint(recipe: Recipe) -> None:
    from models.training.training_set import TrainingSet

    corpus = load_dataset("sentiment")

    def lineage(samples: tuple[Example, ...]) -> object:
        return TrainingSet.of_corrections(corpus, "1", corpus.labels, samples, (), recipe).lineage.samples_fingerprint

    assert lineage(CORRECTIONS) == lineage(CORRECTIONS[::-1]) != lineage(CORRECTIONS[1:])
