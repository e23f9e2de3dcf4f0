"""What is trained, and what comes of it: a job and its candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.bundle import Lineage, Precision
from models.data.dataset import Example

if TYPE_CHECKING:
    from models.data.interactions import Interactions


_CALIBRATION_TEXTS = 256


@dataclass(frozen=True)
class Job:
    """What to train: the base model on `data`, or, where `parent` is given, that version on corrections of its answers.

    `recipe` overrides fields of models.training.config.Recipe.
    """

    task: str
    data: Path | None = None
    precision: Precision = "int8"
    recipe: tuple[tuple[str, Any], ...] = ()
    parent: str | None = None
    """the version whose checkpoint is continued from, and whose corpus is replayed and whose holdout measures"""
    samples: tuple[Example, ...] = ()
    """corrections to learn; their labels may be new"""
    learned: tuple[Example, ...] = ()
    """corrections that the parent or a version before it has learned: they are not in its corpus, and are replayed"""
    interactions: Interactions | None = None
    """of a ranker that continues: its parent's, with what was recorded since"""
    workers: int = 1
    """of Ray Train, when there are more than one; else it is trained in this process"""

    def __post_init__(self) -> None:
        new = self.samples or self.interactions
        if self.parent is None and (new or self.learned):
            raise ValueError("corrections need a parent to continue from")
        if self.parent is not None and (self.data is not None or not new):
            raise ValueError("a training that continues takes its parent's corpus, and needs corrections")


@dataclass(frozen=True)
class Candidate:
    """A trained, exported and evaluated bundle, its checkpoint beside it, that no registry knows yet."""

    task: str
    bundle: Path
    parameters: dict[str, Any]
    metrics: dict[str, float]
    losses: list[tuple[int, float]]
    lineage: Lineage
    confusion: tuple[list[str], list[str], list[str]] | None


def calibration_sample(texts: Sequence[str], seed: int) -> list[str]:
    """A fixed random sample of training texts, for int8 calibration."""
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[i] for i in order[:_CALIBRATION_TEXTS]]
