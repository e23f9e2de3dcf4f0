"""Rankers: towers that read the history, trained further on users' actions on what they were shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from export.bundle import Blend, Lineage, LinearRecord
from export.tokenizer import Ids
from models.curation.types import Rules
from models.data.dataset import DatasetError
from models.data.implicit_feedback import with_rankings
from models.data.interaction_files import (
    InteractionFiles,
    load_checked_interactions,
    load_interactions,
    load_kept_interactions,
    save_interactions,
)
from models.data.interactions import KEPT_ENDING, Interactions
from models.data.report import CorpusReport
from models.feedback.types import Sample
from models.home import checkpoint_folder
from models.tasks.event_names import EVENT_NAMES, RATINGS
from models.tasks.ranker import Ranker
from models.tasks.thresholds import Thresholds
from models.training.candidate import TrainingJob
from models.training.config import Recipe
from models.training.families.base import Champion, Evaluated, Losses, ModelFamily
from models.training.progress import ReportStage
from models.training.tower_checkpoint import TOWERS_FILE

if TYPE_CHECKING:
    from export.linear import LinearReader
    from export.model import Model
    from models.curation.pipeline import Curated
    from models.evaluation.gate import GateResult


@dataclass(frozen=True)
class RankerData:
    """The data of one training of a ranker; models.training.families.base.TrainingData documents the parts."""

    interactions: Interactions
    parent: str | None = None
    report: CorpusReport | None = None

    @property
    def labels(self) -> list[str]:
        return []

    @property
    def lineage(self) -> Lineage:
        return self.interactions.lineage().model_copy(update={"parent": self.parent})

    @property
    def texts(self) -> list[str]:
        return list(self.interactions.texts)

    @property
    def holdout_texts(self) -> list[str]:
        return self.texts

    def save_corpus(self, file: Path) -> None:
        if self.parent is None:  # later interactions are read from the prediction log again
            save_interactions(self.interactions, file)


class RankerFamily(ModelFamily[RankerData]):
    """Events of users on the rankings they got, added to the interactions that the champion was trained on.

    Events that earlier runs learned are read from the store again, for as long as the prediction log keeps their
    rankings (`feedback.log.keep_days`); older interactions are not kept, and would say little.
    """

    kind = "ranker"
    corpus_ending = KEPT_ENDING

    def check_options(self, task: str, options: Mapping[str, Any]) -> None:
        if options.keys() & {"epochs", "max_steps"} or options.get("method") == "lora":
            raise ValueError(
                f"{task} learns vectors of items beside a frozen encoder, and chooses the number of epochs itself: "
                "no --epochs, no --max-steps, no --method lora"
            )

    def load(self, job: TrainingJob, home: Path, recipe: Recipe) -> RankerData:
        if job.parent is None:
            interactions, found = load_checked_interactions(_files_of(job))
            return RankerData(interactions, report=found)
        if job.interactions is None:
            raise DatasetError(f"{job.task} is a ranker: it continues with interactions, not with labels.")
        return RankerData(job.interactions, job.parent)

    def notes(self, job: TrainingJob, home: Path, data: RankerData, recipe: Recipe) -> Sequence[str]:
        return data.interactions.notes

    def load_kept(self, job: TrainingJob, home: Path, lineage: Lineage) -> RankerData:
        return RankerData(load_kept_interactions(home, job.task, lineage))

    def load_for_export(self, job: TrainingJob, home: Path, checkpoint: Path, kept: Lineage | None) -> RankerData:
        if job.data is None and kept is not None:
            return self.load_kept(job, home, kept)
        return RankerData(load_interactions(_files_of(job)))

    def train(
        self, job: TrainingJob, home: Path, data: RankerData, recipe: Recipe, out: Path, report: ReportStage
    ) -> Losses:
        from models.training.fit_ranker import continue_ranker, fit_ranker

        if job.workers > 1:  # before the encoder reads texts for minutes
            from models.training.towers_on_workers import check_ray

            check_ray()
        start = None if job.parent is None else checkpoint_folder(home, job.task, job.parent)
        if start is None or not has_towers(start):
            return fit_ranker(data.interactions, recipe, out, report, job.workers)
        kept = load_kept_interactions(home, job.task, data.lineage)
        new = new_events(kept, data.interactions)
        return continue_ranker(data.interactions, new, start, recipe, out, report, job.workers)

    def fit_without_encoder(
        self, data: RankerData, rows: Sequence[Ids], recipe: Recipe
    ) -> tuple[LinearReader, LinearRecord]:
        from models.training.first_ranker import SETTINGS, fit_first_reader

        blend = Blend(encoder=0.0, linear=1.0, linear_alone=1.0)
        record = LinearRecord(**{**asdict(SETTINGS), "regularization": 0.0}, blend=blend)
        return fit_first_reader(data.interactions, rows), record

    def evaluate(self, task: str, data: RankerData, model: Model, checkpoint: Path | None) -> Evaluated:
        from models.evaluation.evaluate import score_holdout
        from models.evaluation.metrics import popularity, ranker_metrics

        events, ranker = data.interactions.events, self._ranker(data.interactions, model, checkpoint)
        scored = score_holdout(ranker, model, data.interactions)
        metrics = ranker_metrics(scored.users, scored.chosen, scored.scores)
        past = events.take(events.training)
        by_popularity = popularity(past.item, past.chosen, len(data.interactions.item_names))
        held_out = events.item[events.holdout]
        baseline = ranker_metrics(scored.users, scored.chosen, by_popularity[held_out])
        assets, arrays = ranker.to_bundle()
        assets[RATINGS] = data.interactions.ratings._asdict()
        return Evaluated(
            {**metrics, **{f"popularity_{name}": value for name, value in baseline.items()}}, assets, arrays
        )

    @staticmethod
    def _ranker(interactions: Interactions, model: Model, checkpoint: Path | None) -> Ranker:
        """The ranker that goes with the exported model, which reads the texts of other items."""
        if checkpoint is None:
            from models.training.first_ranker import first_ranker

            return first_ranker(interactions, model.predict(list(interactions.texts)))
        from models.training.tower_checkpoint import TrainedTowers

        return TrainedTowers.load(checkpoint).ranker()

    def replayed(self, champion: Champion, max_samples: int) -> list[Sample]:
        return champion.learned(max_samples)  # each with its whole ranking

    def curate(
        self,
        champion: Champion,
        samples: Sequence[Sample],
        rules: Rules,
        *,
        new_labels: bool,
    ) -> Curated:
        from models.curation.pipeline import RANKING_STEPS, Context, curate
        from models.curation.second_pass import redaction

        context = Context(
            labels=frozenset(EVENT_NAMES), training=(), holdout=(), embed=_no_vectors, redact=redaction(rules)
        )
        return curate(samples, context, rules, RANKING_STEPS)

    def continued(
        self,
        champion: Champion,
        learn: Sequence[Sample],
        replayed: Sequence[Sample],
        recipe: Sequence[tuple[str, Any]],
        workers: int,
    ) -> TrainingJob:
        manifest = champion.bundle.manifest
        return TrainingJob(
            champion.task,
            recipe=(("base", manifest.base_model), ("max_length", manifest.max_length)),
            parent=champion.version,
            precision=manifest.precision,
            interactions=with_rankings(_corpus_of(champion), replayed, learn),
            workers=workers,
        )

    def gate(
        self,
        champion: Champion,
        candidate: Path,
        learned: Sequence[Sample],
        replayed: Sequence[Sample],
        held_out: Sequence[Sample],
        thresholds: Thresholds,
    ) -> GateResult:
        from models.evaluation.gate import gate_ranker

        interactions = with_rankings(_corpus_of(champion), replayed, learned, held_out)
        return gate_ranker(champion.bundle.path, candidate, interactions, thresholds)


def has_towers(checkpoint: Path) -> bool:
    """Whether a training can continue from the checkpoint: those of older versions have other parameters."""
    return (checkpoint / TOWERS_FILE).is_file()


def new_events(kept: Interactions, grown: Interactions) -> NDArray[np.bool_]:
    """(events,): which of `grown`'s are not in `kept`, from which it has grown: the newest of a user, as many as came.

    A user of whom both have as many events has no new one.
    """
    before = dict(zip(kept.user_names, np.bincount(kept.events.user, minlength=len(kept.user_names)), strict=True))
    counts = np.bincount(grown.events.user, minlength=len(grown.user_names))
    old = np.array([before.get(name, 0) for name in grown.user_names], int)
    users = grown.events.user
    place = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]
    found: NDArray[np.bool_] = place >= old[users]
    return found


def _files_of(job: TrainingJob) -> InteractionFiles | None:
    """The files of the job; None for the seed shop."""
    return None if job.data is None else InteractionFiles(job.data, job.items, job.users)


def _corpus_of(champion: Champion) -> Interactions:
    return load_kept_interactions(champion.home, champion.task, champion.bundle.manifest.data)


def _no_vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """An `Embed` for steps that compare no texts."""
    return np.zeros((len(texts), 0), np.float32)
