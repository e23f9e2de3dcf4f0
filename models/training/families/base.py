"""The interface of a model family: what differs between kinds of models in training, retraining and the gate.

`models.training.pipeline` and `models.retraining.run` are the steps, which are the same for all kinds.
The modules of this package import torch, cleanlab and MLflow only in the steps that need them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from export.bundle import Bundle, Kind, Lineage, LinearRecord
from export.tokenizer import Ids
from models.curation.types import Rules
from models.data.report import CorpusReport
from models.feedback.store import Store
from models.feedback.types import Sample
from models.home import bundle_folder
from models.releases.release import ancestry
from models.tasks.base import get_task
from models.tasks.thresholds import Thresholds
from models.training.candidate import TrainingJob
from models.training.config import Recipe
from models.training.progress import ReportStage

if TYPE_CHECKING:
    from export.linear import LinearReader
    from export.model import Model
    from models.curation.pipeline import Curated
    from models.evaluation.gate import GateResult

Losses = list[tuple[int, float]]
"""(step, loss) in the course of a training"""


class TrainingData(Protocol):
    """The data of one training."""

    @property
    def labels(self) -> list[str]:
        """The model's labels, in the order of its outputs; empty for a ranker."""

    @property
    def lineage(self) -> Lineage:
        """The parent version and the corpus, for the manifest."""

    @property
    def texts(self) -> list[str]:
        """Training texts; a sample of them calibrates int8."""

    @property
    def holdout_texts(self) -> list[str]:
        """The texts on which parity with the checkpoint is measured."""

    @property
    def report(self) -> CorpusReport | None:
        """What was found in the training file; None when it was not checked."""

    def save_corpus(self, file: Path) -> None:
        """Write the corpus to `file`, for trainings that continue from this version, unless it is kept already.

        `ModelFamily.load` of a job with a parent reads it.
        """


Data = TypeVar("Data", bound=TrainingData)


@dataclass(frozen=True)
class Evaluated:
    """Metrics of an exported model on the holdout, and what its bundle needs beside the graph."""

    metrics: dict[str, float]
    assets: dict[str, Any] = field(default_factory=dict)
    towers: dict[str, NDArray[Any]] = field(default_factory=dict)
    """arrays of a ranker, by name"""
    confusion: tuple[list[str], list[str], list[str]] | None = None
    """for a classifier's confusion matrix: its labels, and the true and the predicted label of each holdout example"""


@dataclass(frozen=True)
class Champion:
    """The version that a retraining continues from, and with which its candidate is compared."""

    task: str
    version: str
    home: Path
    store: Store

    @property
    def bundle(self) -> Bundle:
        return Bundle.open(bundle_folder(self.home, self.task, self.version))

    def learned(self, max_samples: int | None = None) -> list[Sample]:
        """Corrections that this version or its ancestors learned; none that only a withdrawn version learned."""
        return self.store.feedback.used(self.task, ancestry(self.home, self.task, self.version), max_samples)


class ModelFamily(ABC, Generic[Data]):
    """One kind of model. Instances are stateless. `job.parent`, if set, is the version to continue from."""

    kind: ClassVar[Kind]
    corpus_ending: ClassVar[str] = ".jsonl"
    """of the files that `TrainingData.save_corpus` writes"""

    # Training

    def check_options(self, task: str, options: Mapping[str, Any]) -> None:
        """Raises ValueError when `options` set fields of the recipe that this family does not use."""

    def recipe(self, job: TrainingJob, home: Path) -> Recipe:
        """The recipe, with the job's overrides. Raises BundleError when the parent's bundle cannot be read."""
        return replace(Recipe(max_length=get_task(job.task).max_length), **dict(job.recipe))

    @abstractmethod
    def load(self, job: TrainingJob, home: Path, recipe: Recipe) -> Data:
        """The data that `job` trains on. Raises DatasetError on data that would train a wrong model. Loads no torch."""

    @abstractmethod
    def load_kept(self, job: TrainingJob, home: Path, lineage: Lineage) -> Data:
        """The data with this lineage, as the home keeps it, for a training without a parent. Raises DatasetError."""

    @abstractmethod
    def load_for_export(self, job: TrainingJob, home: Path, checkpoint: Path, kept: Lineage | None) -> Data:
        """The corpus on which a re-exported checkpoint is evaluated: the job's file, or the one kept with that lineage.

        Raises DatasetError, CheckpointError.
        """

    def notes(self, job: TrainingJob, home: Path, data: Data, recipe: Recipe) -> Sequence[str]:
        """What a user should know of a training on `data`, in sentences for the manifest."""
        return ()

    @abstractmethod
    def train(self, job: TrainingJob, home: Path, data: Data, recipe: Recipe, out: Path, report: ReportStage) -> Losses:
        """Train on `data` and write the checkpoint to `out`. Raises CheckpointError for an unknown base."""

    @abstractmethod
    def fit_without_encoder(self, data: Data, rows: Sequence[Ids], recipe: Recipe) -> tuple[LinearReader, LinearRecord]:
        """What a task's first version serves with (models/training/first_version.py): seconds, and no torch.

        `rows` are the token ids of `data.texts`.
        """

    @abstractmethod
    def evaluate(self, task: str, data: Data, model: Model, checkpoint: Path | None) -> Evaluated:
        """Evaluate the exported model on the holdout, and make its assets.

        `checkpoint` is the one that was exported; None for a first version, which has none.
        """

    # Retraining, on corrections from users; docs/feedback.md

    @abstractmethod
    def replayed(self, champion: Champion, max_samples: int) -> list[Sample]:
        """Corrections that the champion has learned, for the candidate to replay."""

    @abstractmethod
    def curate(
        self,
        champion: Champion,
        samples: Sequence[Sample],
        rules: Rules,
        *,
        new_labels: bool,
    ) -> Curated:
        """Which of `samples` may be learned, given the champion's corpus and what it has learned. May take minutes."""

    @abstractmethod
    def continued(
        self,
        champion: Champion,
        learn: Sequence[Sample],
        replayed: Sequence[Sample],
        recipe: Sequence[tuple[str, Any]],
        workers: int,
    ) -> TrainingJob:
        """The job that continues from the champion: it learns `learn` and replays `replayed`."""

    @abstractmethod
    def gate(
        self,
        champion: Champion,
        candidate: Path,
        learned: Sequence[Sample],
        replayed: Sequence[Sample],
        held_out: Sequence[Sample],
        thresholds: Thresholds,
    ) -> GateResult:
        """Compare the bundle `candidate` with the champion on the frozen holdout and the newest samples, `held_out`."""
