"""What one training of a classifier reads: a corpus alone, or corrections with old texts between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from export.bundle import Lineage
from models.data.dataset import Dataset, Example, fingerprint, save_corpus
from models.training.replay import mix

if TYPE_CHECKING:
    from models.training.config import Recipe


@dataclass(frozen=True)
class TrainingSet:
    """Whatever the examples are, the holdout of the corpus measures what was learned, so that versions compare.

    models.training.families.base.TrainingData says what `labels`, `lineage` and the texts are for.
    """

    corpus: Dataset
    examples: list[Example]
    labels: list[str]
    lineage: Lineage
    excess: dict[str, float] = field(default_factory=dict)
    """by label: how often it is among the examples for each time it is in the data; 1 where it is not named"""

    @property
    def texts(self) -> list[str]:
        return [example.text for example in self.examples]

    @property
    def holdout_texts(self) -> list[str]:
        return [example.text for example in self.corpus.holdout]

    def save_corpus(self, file: Path) -> None:
        save_corpus(self.corpus, file)

    @classmethod
    def of_corpus(cls, corpus: Dataset) -> Self:
        """The corpus as it is, for a training from the base model."""
        return cls(corpus, corpus.train, corpus.labels, corpus.lineage())

    @classmethod
    def of_corrections(
        cls,
        corpus: Dataset,
        parent: str,
        known: Sequence[str],
        samples: Sequence[Example],
        learned: Sequence[Example],
        recipe: Recipe,
    ) -> Self:
        """`samples`, and what is to be replayed of the corpus and of the corrections that were `learned` before.

        No label that the parent version knows is lost, whether or not an example has it.
        """
        old = [*corpus.train, *learned]
        examples = mix(samples, old, recipe)
        seen, there = (Counter(example.label for example in rows) for rows in (examples, [*samples, *old]))
        labels = sorted({*known, *(example.label for example in examples)})
        changes = {
            "parent": parent,
            "samples": len(samples),
            "samples_fingerprint": fingerprint(sorted(samples)),
            "learned_samples": len(learned),
            "replayed": len(examples) - len(samples) * recipe.repeats,
        }
        lineage = corpus.lineage().model_copy(update=changes)
        return cls(corpus, examples, labels, lineage, {label: seen[label] / there[label] for label in seen})
