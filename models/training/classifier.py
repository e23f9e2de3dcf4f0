"""A classifier, from its corpus or its parent's and corrections, to a candidate."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from export.bundle import Bundle
from export.session import OnnxSession
from models.data.dataset import load_corpus, load_dataset, save_corpus
from models.tasks.base import ClassifierTask, get_task, softmax
from models.training.candidate import CORPUS, Candidate, Job, calibration_sample, evaluated_candidate, manifest_fields
from models.training.config import CONTINUED, Recipe
from models.training.progress import Stage
from models.training.training_set import Lesson


def train_classifier(job: Job, home: Path, folder: Path, report: Stage) -> Candidate:
    parent = Bundle.open(home / "bundles" / job.task / job.parent) if job.parent else None
    corpus = load_corpus(home, job.task, parent.manifest.data) if parent else load_dataset(job.task, job.data)
    report("loading", 0, 0)  # importing torch and transformers takes seconds; the data was checked before that
    from models.training.finetune import finetune_classifier

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
        from models.training.distributed import finetune_on_workers

        finetune = partial(finetune_on_workers, job.workers)
    losses = finetune(lesson, recipe, checkpoint, report, start)
    report("exporting", 0, 0)
    bundle, predicted = export_classifier(job, lesson, recipe, checkpoint, folder / "bundle")
    save_corpus(corpus, folder / CORPUS)
    confusion = (lesson.labels, [example.label for example in corpus.holdout], predicted)
    return evaluated_candidate(job, bundle, recipe, losses, lesson.lineage, confusion)


def export_classifier(
    job: Job, lesson: Lesson, recipe: Recipe, checkpoint: Path, out: Path
) -> tuple[Bundle, list[str]]:
    """The bundle, and the label it predicts for each holdout text."""
    from export.to_onnx import export_bundle
    from models.evaluation.metrics import classifier_metrics

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

    calibration = calibration_sample([example.text for example in lesson.examples], recipe.seed)
    fields = manifest_fields(job, recipe, lesson.labels, lesson.lineage)
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
