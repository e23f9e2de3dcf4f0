"""One training, from a corpus to a registered version: the table of contents of `flywheel train`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from export.bundle import Bundle
from models.data.dataset import DatasetError, corpus_file, load_dataset
from models.tasks.base import get_task
from models.training.candidate import CORPUS, Candidate, Job
from models.training.classifier import export_classifier, train_classifier
from models.training.config import Recipe
from models.training.progress import Stage
from models.training.ranker import export_ranker, train_ranker
from models.training.training_set import Lesson

if TYPE_CHECKING:
    pass

_RETRAINING = "retrain-"


def build_candidate(job: Job, home: Path, report: Stage) -> Candidate:
    """Fine-tune, export, check parity and evaluate. Nothing outside `home/work` changes.

    Raises DatasetError, BundleError, CheckpointError or ParityError, each with a sentence for the user.
    """
    kind = get_task(job.task).kind
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=work, prefix=f"{_RETRAINING if job.parent else ''}{job.task}-"))
    try:
        if kind == "classifier":
            return train_classifier(job, home, folder, report)
        return train_ranker(job, folder, report)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def sweep(home: Path, task: str) -> None:
    """Delete what retrainings of the task left that were killed: a checkpoint remembers what somebody may have erased.

    Only for who holds the lock of the task's retrainings.
    """
    for folder in (home / "work").glob(f"{_RETRAINING}{task}-????????"):  # mkdtemp's eight: no other task ends so
        shutil.rmtree(folder, ignore_errors=True)


def register_candidate(candidate: Candidate, home: Path, artifacts: Sequence[Path] = ()) -> str:
    """Log and register the candidate in MLflow, and keep the corpus it was trained on; its new version."""
    from models.evaluation.metrics import confusion_figure
    from models.releases.registry import Registry

    corpus = candidate.bundle.parent / CORPUS
    if corpus.is_file():  # before the version, which cannot be continued from without it
        place = corpus_file(home, candidate.task, candidate.lineage)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(corpus, place)
    figures = {"confusion_matrix.png": confusion_figure(*candidate.confusion)} if candidate.confusion else {}
    version = Registry(home).register(
        candidate.task,
        candidate.bundle,
        candidate.bundle.parent / "checkpoint",
        parameters=candidate.parameters,
        metrics=candidate.metrics,
        losses=candidate.losses,
        figures=figures,
        lineage=candidate.lineage,
        artifacts=artifacts,
    )
    shutil.rmtree(candidate.bundle.parent, ignore_errors=True)
    return version


def export_checkpoint(job: Job, checkpoint: Path, out: Path) -> Bundle:
    """Export a checkpoint again, in another precision, and measure it on the job's data.

    Raises CheckpointError, DatasetError or ParityError, each with a sentence for the user.
    """
    from export.checkpoint import checkpoint_labels
    from models.data.interactions import load_behaviour

    recipe = Recipe(max_length=get_task(job.task).max_length)
    if get_task(job.task).kind != "classifier":
        return export_ranker(job, load_behaviour(job.data), recipe, checkpoint, out)
    corpus, labels = load_dataset(job.task, job.data), checkpoint_labels(checkpoint)
    if unknown := set(corpus.labels) - set(labels):
        raise DatasetError(
            f"{checkpoint} does not know the label {min(unknown)!r} of {corpus.name}; "
            "give what it was trained on: --data FILE"
        )
    return export_classifier(job, replace(Lesson.of_corpus(corpus), labels=labels), recipe, checkpoint, out)[0]
