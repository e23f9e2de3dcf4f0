"""A training job and the candidate that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.bundle import Lineage, Precision
from models.data.dataset import Example
from models.data.naming import OURS, Naming
from models.data.report import CorpusReport

if TYPE_CHECKING:
    from models.data.interactions import Interactions


_CALIBRATION_TEXTS = 256
_PARITY_TEXTS = 2000  # a share of 3 % is known to 0.7 points with these, and PyTorch reads them one at a time


@dataclass(frozen=True)
class TrainingJob:
    """What to train: the base model on `data` or, given `parent`, that version further on corrections of its answers.

    `recipe` overrides fields of models.training.config.Recipe.
    """

    task: str
    data: Path | None = None
    precision: Precision = "int8"
    recipe: tuple[tuple[str, Any], ...] = ()
    parent: str | None = None
    """the version to continue from: its checkpoint is the start, its corpus is replayed, its holdout evaluates"""
    samples: tuple[Example, ...] = ()
    """new corrections to learn; their labels may be new"""
    learned: tuple[Example, ...] = ()
    """corrections that the parent or its ancestors learned: they are not in the corpus, and are replayed"""
    interactions: Interactions | None = None
    """for a ranker with a parent: the parent's interactions and those recorded since"""
    workers: int = 1
    """Ray Train workers; with 1, the training runs in this process"""
    resume: Path | None = None
    """the work folder of an unfinished training to go on from: models/training/unfinished.py"""
    items: Path | None = None
    """for a ranker, with `data`: texts and features of the items"""
    users: Path | None = None
    """for a ranker, with `data`: features of the users"""
    naming: Naming = OURS
    """how the files name their columns and events"""

    def __post_init__(self) -> None:
        new = self.samples or self.interactions
        if self.data is None and (self.items or self.users):
            raise ValueError("files of items and users need a file of events: give it with --data")
        if self.data is None and self.naming:
            raise ValueError("--column and --event are names in a file: give it with --data")
        if self.parent is None and (new or self.learned):
            raise ValueError("corrections need a parent to continue from")
        if self.parent is not None and (self.data is not None or not new):
            raise ValueError("a training that continues takes its parent's corpus, and needs corrections")


@dataclass(frozen=True)
class TrainedCandidate:
    """A trained, exported and evaluated bundle, with its checkpoint beside it, that is not registered yet."""

    task: str
    bundle: Path
    parameters: dict[str, Any]
    metrics: dict[str, float]
    losses: list[tuple[int, float]]
    lineage: Lineage
    confusion: tuple[list[str], list[str], list[str]] | None
    """models.evaluation.confusion.Confusion has the parts"""
    report: CorpusReport | None = None
    """what was found in the training file"""
    notes: tuple[str, ...] = ()
    """what a user should know about this version, in sentences"""


def calibration_sample(texts: Sequence[str], seed: int) -> list[str]:
    """A fixed random sample of training texts, for int8 calibration."""
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[i] for i in order[:_CALIBRATION_TEXTS]]


def parity_sample(texts: Sequence[str], seed: int) -> Sequence[str]:
    """The holdout, or a fixed random sample of a large one, to measure parity on."""
    if len(texts) <= _PARITY_TEXTS:
        return texts
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[i] for i in order[:_PARITY_TEXTS]]
