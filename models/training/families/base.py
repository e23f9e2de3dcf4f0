"""What a kind of model must say of itself to be trained, exported, retrained and judged.

`models.training.pipeline` and `models.retraining.run` are the steps, which are the same for all; here is what differs.
None of the modules beside this one imports torch, cleanlab or MLflow before a step that needs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from export.bundle import Bundle, Kind, Lineage
from models.curation.types import Rules
from models.feedback.store import Store
from models.feedback.types import Sample
from models.home import bundle_folder
from models.releases.release import ancestry
from models.tasks.base import get_task
from models.tasks.thresholds import Thresholds
from models.training.candidate import Job
from models.training.config import Recipe
from models.training.progress import Stage

if TYPE_CHECKING:
    from export.session import OnnxSession
    from models.curation.pipeline import Curated
    from models.evaluation.gate import GateResult

Losses = list[tuple[int, float]]
"""(step, loss) as a training went"""


class TrainingData(Protocol):
    """What one training reads."""

    @property
    def labels(self) -> list[str]:
        """What the model can answer, in the order of its output; empty for a ranker."""

    @property
    def lineage(self) -> Lineage:
        """Where the version comes from."""

    @property
    def texts(self) -> list[str]:
        """What it trains on: int8 is calibrated on a sample of them."""

    @property
    def holdout_texts(self) -> list[str]:
        """What parity with the checkpoint is measured on."""

    def save_corpus(self, file: Path) -> None:
        """Write the corpus to `file`, for trainings that continue from this version; nothing where it is kept already.

        `ModelFamily.load` with a parent reads it again.
        """


Data = TypeVar("Data", bound=TrainingData)


@dataclass(frozen=True)
class Evaluated:
    """What an exported model is worth on the holdout, and what its bundle needs beside the graph."""

    metrics: dict[str, float]
    assets: dict[str, Any] = field(default_factory=dict)
    confusion: tuple[list[str], list[str], list[str]] | None = None
    """labels, true and predicted ones, for the figure of a classifier"""


@dataclass(frozen=True)
class Champion:
    """The version that a retraining continues from, and that its candidate is compared with."""

    task: str
    version: str
    home: Path
    store: Store

    @property
    def bundle(self) -> Bundle:
        return Bundle.open(bundle_folder(self.home, self.task, self.version))

    def learned(self, max_samples: int | None = None) -> list[Sample]:
        """What it or a version before it has learned; never what a version learned that was withdrawn."""
        return self.store.feedback.used(self.task, ancestry(self.home, self.task, self.version), max_samples)


class ModelFamily(ABC, Generic[Data]):
    """One kind of model. Instances hold nothing. `job.parent`, where it is set, is the version to continue from."""

    kind: ClassVar[Kind]

    # Training

    def check_options(self, task: str, options: Mapping[str, Any]) -> None:
        """Raises ValueError when fields of the recipe are asked for that this family has no use for."""

    def recipe(self, job: Job, home: Path) -> Recipe:
        """How to train. Raises BundleError when the parent's bundle cannot be read."""
        return replace(Recipe(max_length=get_task(job.task).max_length), **dict(job.recipe))

    @abstractmethod
    def load(self, job: Job, home: Path, recipe: Recipe) -> Data:
        """What `job` trains on. Raises DatasetError on anything that would train a wrong model. Loads no torch."""

    @abstractmethod
    def load_for_export(self, job: Job, checkpoint: Path) -> Data:
        """The corpus that a checkpoint of ours, exported anew, is measured on. Raises DatasetError, CheckpointError."""

    @abstractmethod
    def train(self, job: Job, home: Path, data: Data, recipe: Recipe, out: Path, report: Stage) -> Losses:
        """Train on `data` and write the checkpoint to `out`. Raises CheckpointError for an unknown base."""

    @abstractmethod
    def evaluate(self, task: str, data: Data, session: OnnxSession) -> Evaluated:
        """Metrics on the holdout, of the exported model that will serve, and the assets made with it."""

    # Retraining, of corrections that users gave; docs/feedback.md

    @abstractmethod
    def replayed(self, champion: Champion, max_samples: int) -> list[Sample]:
        """What the champion has learned and the candidate may learn again."""

    @abstractmethod
    def curate(
        self,
        champion: Champion,
        samples: Sequence[Sample],
        replayed: Sequence[Sample],
        rules: Rules,
        *,
        new_labels: bool,
    ) -> Curated:
        """Which of `samples` may be learned, beside the champion's corpus and `replayed`. May take minutes."""

    @abstractmethod
    def continued(
        self,
        champion: Champion,
        learn: Sequence[Sample],
        replayed: Sequence[Sample],
        recipe: Sequence[tuple[str, Any]],
        workers: int,
    ) -> Job:
        """The job whose candidate has learned `learn` and not forgotten the rest."""

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
        """The bundle `candidate` against the champion, on the frozen holdout and on the newest samples, `held_out`."""
