"""Do explanations name the words that matter? Take the strongest out of a text, and see whether its label changes.

    python -m models.evaluation.deletion BUNDLE [FILE]

prints this for a version, on the holdout of a labelled file or of the task's seed corpus.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from export.bundle import Bundle
from export.explain import Explained, explain_texts
from export.model import Model
from export.word_spans import Word
from models.data.dataset import load_dataset

REMOVED = 3
"""words"""
_MIN_WORDS = 2 * REMOVED  # of a text: of fewer, the strongest and any others are mostly the same
_DRAWS = 10  # of words at random, for each text


class Deletion(NamedTuple):
    """Shares of texts whose label changes, 0 to 1, when three of their words are taken out."""

    texts: int
    strongest: float
    """the words with the highest contributions"""
    at_random: float
    """any words; a mean over several draws"""

    @property
    def ratio(self) -> float:
        return self.strongest / self.at_random if self.at_random else float("inf")


def measure_deletion(model: Model, texts: Sequence[str], seed: int = 0) -> Deletion:
    """Explain `texts`, those of few words left out, and take words out of them."""
    explained = [found for found in explain_texts(model, texts) if len(found.words) >= _MIN_WORDS]
    if not explained:
        raise ValueError(f"no text has {_MIN_WORDS} words")
    rng = np.random.default_rng(seed)
    strongest = [np.argsort(-found.explanation.contributions, kind="stable")[:REMOVED] for found in explained]
    draws = [[rng.permutation(len(found.words))[:REMOVED] for found in explained] for _ in range(_DRAWS)]
    at_random = float(np.mean([_changed(model, explained, drawn) for drawn in draws]))
    return Deletion(len(explained), _changed(model, explained, strongest), at_random)


def _changed(model: Model, explained: Sequence[Explained], chosen: Sequence[np.ndarray]) -> float:
    """The share of texts whose label changes without the words at these indexes of each."""
    cut = [
        without(found.text, [found.words[i] for i in of_text]) for found, of_text in zip(explained, chosen, strict=True)
    ]
    labels = model.predict(cut).argmax(1)
    return float(np.mean([label != found.label for label, found in zip(labels, explained, strict=True)]))


def without(text: str, words: Sequence[Word]) -> str:
    """The text with a space in place of each of `words`."""
    for word in sorted(words, reverse=True):
        text = f"{text[: word.start]} {text[word.end :]}"
    return text


def main(bundle: str, file: str | None = None) -> None:
    model = Model.open(Bundle.open(bundle))
    holdout = load_dataset(model.bundle.manifest.task, Path(file) if file else None).holdout
    found = measure_deletion(model, [example.text for example in holdout])
    print(
        f"{found.texts} texts: {found.strongest:.1%} change their label without their {REMOVED} strongest words, "
        f"{found.at_random:.1%} without any {REMOVED}: {found.ratio:.1f} times as many"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
