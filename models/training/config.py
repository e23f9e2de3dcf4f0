"""The fine-tuning recipe. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from export.base_model import DEFAULT_BASE


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune. The defaults were chosen on the seed corpora: docs/decisions/0005-training-recipe.md."""

    base: str = DEFAULT_BASE
    method: Literal["full", "lora"] = "full"
    epochs: int = 3
    min_steps: int = 120  # a small corpus gets more epochs, until it has so many batches: decision 0033
    max_steps: int = 0  # ends the training early; 0: no bound
    learning_rate: float = 3e-4
    batch: int = 32
    frozen_layers: int = 2  # and the embeddings: general language knowledge, which needs no training
    max_length: int = 128
    label_smoothing: float = 0.1
    head_rate: float = (
        5.0  # times learning_rate, for the head: it starts from noise, the encoder from pretrained weights
    )
    replay: int = 120  # old texts of each label that a continued training replays: models/training/replay.py
    repeats: int = 3  # how often a continued training sees each new text
    blend: float = (
        1.0  # weight of the trained parameters in the saved ones; the rest is of the checkpoint continued from
    )
    confidence_high: float = 0.95  # the precision from which an answer's confidence is called high
    confidence_medium: float = 0.80  # and medium: models/training/confidence.py
    seed: int = 7
    threads: int = 0  # torch threads; 0: torch's default

    def epochs_of(self, examples: int) -> int:
        """The passes over so many examples."""
        steps = ceil(max(examples, 1) / self.batch)
        return max(self.epochs, ceil(self.min_steps / steps))


CONTINUED = Recipe(epochs=1, min_steps=0, learning_rate=1e-4, blend=0.75)
"""The recipe for continuing from one of our checkpoints on corrections and replayed texts: decision 0015."""
