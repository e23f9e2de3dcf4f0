"""What a training is given: examples, labels, lineage."""

from __future__ import annotations

from models.data.dataset import Example, load_dataset
from tests.helpers.own_corpus import CORRECTIONS
from tests.helpers.replay import RECIPE, examples


def test_a_training_set_says_which_labels_it_shows_more_often_than_the_data_has_them() -> None:
    from models.training.training_set import TrainingSet

    corpus = load_dataset("sentiment")
    corpus = corpus._replace(train=[*examples("few", 4), *examples("many", 50)])
    new = [*examples("new", 6), Example("a text of few", "few")]
    training_set = TrainingSet.of_corrections(corpus, "1", ["few", "many", "unseen"], new, (), RECIPE)
    assert training_set.labels == ["few", "many", "new", "unseen"]
    assert training_set.excess == {"new": 2, "few": (2 * 1 + 4) / 5, "many": 14 / 50}


def test_the_order_of_the_corrections_is_not_part_of_their_fingerprint() -> None:
    from models.training.training_set import TrainingSet

    corpus = load_dataset("sentiment")

    def lineage(samples: tuple[Example, ...]) -> object:
        return TrainingSet.of_corrections(corpus, "1", corpus.labels, samples, (), RECIPE).lineage.samples_fingerprint

    assert lineage(CORRECTIONS) == lineage(CORRECTIONS[::-1]) != lineage(CORRECTIONS[1:])
