"""The training set of a classifier: a corpus alone, or corrections mixed with replayed texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from export.bundle import Lineage
from models.data.dataset import Dataset, Example, fingerprint, save_corpus
from models.data.report import CorpusReport
from models.training.replay import mix_with_replay, not_corrected

if TYPE_CHECKING:
    from models.training.config import Recipe


@dataclass(frozen=True)
class TrainingSet:
    """Examples to train on, and the corpus whose holdout evaluates every version, so that versions are comparable.

    models.training.families.base.TrainingData documents `labels`, `lineage` and the texts.
    """

    corpus: Dataset
    examples: list[Example]
    labels: list[str]
    lineage: Lineage
    excess: dict[str, float] = field(default_factory=dict)
    """by label: its count among the examples over its count in the data; 1 for labels that are missing here"""

    report: CorpusReport | None = None
    """what was found in the training file"""
    everything: tuple[Example, ...] = ()
    """for a continued training: all that the new version is to know, of which the examples are a sample"""

    @property
    def known_examples(self) -> Sequence[Example]:
        """All that the version is to know, each once: what a linear reader is trained on."""
        return self.everything or self.examples

    @property
    def texts(self) -> list[str]:
        return [example.text for example in self.examples]

    @property
    def holdout_texts(self) -> list[str]:
        return [example.text for example in self.corpus.holdout]

    def save_corpus(self, file: Path) -> None:
        save_corpus(self.corpus, file)

    @classmethod
    def of_corpus(cls, corpus: Dataset, report: CorpusReport | None = None) -> Self:
        """The corpus as it is, for a training from the base model."""
        return cls(corpus, corpus.train, corpus.labels, corpus.lineage(), report=report)

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
        """New `samples`, mixed with a replay of the corpus and of the corrections `learned` before.

        All labels of the parent version, `known`, stay, even those without an example.
        """
        old = [*corpus.train, *learned]
        examples = mix_with_replay(samples, old, recipe)
        used, available = (Counter(example.label for example in rows) for rows in (examples, [*samples, *old]))
        labels = sorted({*known, *(example.label for example in examples)})
        changes = {
            "parent": parent,
            "samples": len(samples),
            "samples_fingerprint": fingerprint(sorted(samples)),
            "learned_samples": len(learned),
            "replayed": len(examples) - len(samples) * recipe.repeats,
        }
        lineage = corpus.lineage().model_copy(update=changes)
        excess = {label: used[label] / available[label] for label in used}
        return cls(corpus, examples, labels, lineage, excess, everything=(*not_corrected(samples, old), *samples))
