"""One training, from a corpus to a registered version: the table of contents of `flywheel train`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.bundle import Bundle, Precision
from export.session import OnnxSession
from models.dataset import DatasetError, Example, corpus_file, load_corpus, load_dataset, save_corpus
from models.lesson import Lesson
from models.progress import Stage
from models.task import ClassifierTask, get_task, softmax

if TYPE_CHECKING:
    from models.behaviour import Behaviour
    from models.finetune import Recipe

_CALIBRATION_TEXTS = 256
_CORPUS = "corpus.jsonl"
_RETRAINING = "retrain-"


@dataclass(frozen=True)
class Job:
    """What to train: the base model on `data`, or, where `parent` is given, that version on corrections of its answers.

    `recipe` overrides fields of models.finetune.Recipe.
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
    behaviour: Behaviour | None = None
    """of a ranker that continues: its parent's, with what was recorded since"""
    workers: int = 1
    """of Ray Train, when there are more than one; else it is trained in this process"""

    def __post_init__(self) -> None:
        new = self.samples or self.behaviour
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
    lineage: dict[str, Any]
    confusion: tuple[list[str], list[str], list[str]] | None


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
            return _classifier(job, home, folder, report)
        return _ranker(job, folder, report)
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
    from models.evaluate import confusion_figure
    from models.registry import Registry

    corpus = candidate.bundle.parent / _CORPUS
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


def _classifier(job: Job, home: Path, folder: Path, report: Stage) -> Candidate:
    parent = Bundle.open(home / "bundles" / job.task / job.parent) if job.parent else None
    corpus = load_corpus(home, job.task, parent.manifest.data) if parent else load_dataset(job.task, job.data)
    report("loading", 0, 0)  # importing torch and transformers takes seconds; the data was checked before that
    from models.finetune import CONTINUED, Recipe, finetune_classifier

    start = None
    if parent is None:
        recipe = replace(Recipe(max_length=get_task(job.task).max_length), **dict(job.recipe))
        lesson = Lesson.of_corpus(corpus)
    else:
        manifest, start = parent.manifest, home / "checkpoints" / job.task / str(job.parent)
        recipe = replace(CONTINUED, base=manifest.base_model, max_length=manifest.max_length)
        recipe = replace(recipe, **dict(job.recipe))
        lesson = Lesson.of_corrections(corpus, str(job.parent), manifest.labels, job.samples, job.learned, recipe)
    checkpoint = folder / "checkpoint"
    finetune = finetune_classifier
    if job.workers > 1:
        from models.workers import finetune_on_workers

        finetune = partial(finetune_on_workers, job.workers)
    losses = finetune(lesson, recipe, checkpoint, report, start)
    report("exporting", 0, 0)
    bundle, predicted = _export_classifier(job, lesson, recipe, checkpoint, folder / "bundle")
    save_corpus(corpus, folder / _CORPUS)
    confusion = (lesson.labels, [example.label for example in corpus.holdout], predicted)
    return _candidate(job, bundle, recipe, losses, lesson.lineage, confusion)


def _ranker(job: Job, folder: Path, report: Stage) -> Candidate:
    from models.behaviour import keep_behaviour, load_behaviour

    if job.parent and job.behaviour is None:
        raise DatasetError(f"{job.task} is a ranker: it continues with behaviour, not with labels.")
    behaviour = job.behaviour or load_behaviour(job.data)
    if job.behaviour is None:  # at once, or it might be another file by then
        keep_behaviour(job.data, folder / _CORPUS)
    report("loading", 0, 0)
    from models.finetune import Recipe
    from models.fit_ranker import tower_matrices
    from models.tower import fit_tower

    recipe = replace(Recipe(max_length=get_task(job.task).max_length), **dict(job.recipe))
    checkpoint = folder / "checkpoint"
    texts = [item.text for item in behaviour.items.values()]
    shown, chosen = tower_matrices(behaviour)
    losses = fit_tower(texts, shown, chosen, recipe, checkpoint, report)
    report("exporting", 0, 0)
    bundle = _export_ranker(job, behaviour, recipe, checkpoint, folder / "bundle")
    return _candidate(job, bundle, recipe, losses, _lineage(job, behaviour), None)


def export_checkpoint(job: Job, checkpoint: Path, out: Path) -> Bundle:
    """Export a checkpoint again, in another precision, and measure it on the job's data.

    Raises CheckpointError, DatasetError or ParityError, each with a sentence for the user.
    """
    from export.checkpoint import checkpoint_labels
    from models.behaviour import load_behaviour
    from models.finetune import Recipe

    recipe = Recipe(max_length=get_task(job.task).max_length)
    if get_task(job.task).kind != "classifier":
        return _export_ranker(job, load_behaviour(job.data), recipe, checkpoint, out)
    corpus, labels = load_dataset(job.task, job.data), checkpoint_labels(checkpoint)
    if unknown := set(corpus.labels) - set(labels):
        raise DatasetError(
            f"{checkpoint} does not know the label {min(unknown)!r} of {corpus.name}; "
            "give what it was trained on: --data FILE"
        )
    return _export_classifier(job, replace(Lesson.of_corpus(corpus), labels=labels), recipe, checkpoint, out)[0]


def _export_classifier(
    job: Job, lesson: Lesson, recipe: Recipe, checkpoint: Path, out: Path
) -> tuple[Bundle, list[str]]:
    """The bundle, and the label it predicts for each holdout text."""
    from export.to_onnx import export_bundle
    from models.evaluate import classifier_metrics

    task = get_task(job.task)
    assert issubclass(task, ClassifierTask)
    known, truth = lesson.corpus.train, [example.label for example in lesson.corpus.holdout]
    held_out = [example.text for example in lesson.corpus.holdout]
    predicted: list[str] = []

    def finish(session: OnnxSession) -> tuple[dict[str, float], dict[str, Any]]:
        probabilities = softmax(session.predict(held_out))
        predicted.extend(lesson.labels[i] for i in probabilities.argmax(1))
        # From the corpus alone: assets are shown to other users, and a correction is its author's.
        assets = task.assets(session, [example.text for example in known], [example.label for example in known])
        return classifier_metrics(lesson.labels, truth, probabilities), assets

    calibration = _sample([example.text for example in lesson.examples], recipe.seed)
    fields = _fields(job, recipe, lesson.labels, lesson.lineage)
    bundle = export_bundle(
        checkpoint,
        out,
        fields=fields,
        calibration=calibration,
        holdout=held_out,
        finish=finish,
        precision=job.precision,
    )
    return bundle, predicted


def _export_ranker(job: Job, behaviour: Behaviour, recipe: Recipe, checkpoint: Path, out: Path) -> Bundle:
    from export.to_onnx import export_bundle
    from models.fit_ranker import fit_ranker

    texts = [item.text for item in behaviour.items.values()]

    def finish(session: OnnxSession) -> tuple[dict[str, float], dict[str, Any]]:
        ranker, metrics = fit_ranker(behaviour, session)
        return metrics, {"ranker": ranker.to_asset()}

    calibration = _sample(texts, recipe.seed)
    fields = _fields(job, recipe, [], _lineage(job, behaviour))
    return export_bundle(
        checkpoint, out, fields=fields, calibration=calibration, holdout=texts, finish=finish, precision=job.precision
    )


def _lineage(job: Job, behaviour: Behaviour) -> dict[str, Any]:
    return behaviour.lineage() | ({"parent": job.parent} if job.parent else {})


def _sample(texts: Sequence[str], seed: int) -> list[str]:
    """A fixed random sample of training texts, for int8 calibration."""
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[i] for i in order[:_CALIBRATION_TEXTS]]


def _fields(job: Job, recipe: Recipe, labels: Sequence[str], lineage: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": job.task,
        "kind": get_task(job.task).kind,
        "labels": labels,
        "max_length": recipe.max_length,
        "base_model": recipe.base,
        "data": lineage,
    }


def _candidate(
    job: Job,
    bundle: Bundle,
    recipe: Recipe,
    losses: list[tuple[int, float]],
    lineage: dict[str, Any],
    confusion: tuple[list[str], list[str], list[str]] | None,
) -> Candidate:
    metrics = {**bundle.manifest.metrics}
    for name in ("labels_moved", "mean_cosine", "max_difference", "max_batch_difference"):
        if name in bundle.manifest.parity:
            metrics[f"parity.{name}"] = bundle.manifest.parity[name]
    parameters = {**asdict(recipe), "precision": job.precision}
    return Candidate(job.task, bundle.path, parameters, metrics, losses, lineage, confusion)
