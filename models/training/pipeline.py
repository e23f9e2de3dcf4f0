"""The steps of one training (`flywheel train`), from a corpus to a registered version."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from export.bundle import Bundle, Lineage, Manifest
from export.errors import ParityError
from export.symbols import Unknown
from models.home import corpus_file, training_folder, work_folder
from models.releases.record import TrainingRecord
from models.tasks.base import get_task
from models.tasks.confidence import measured
from models.training.candidate import TrainedCandidate, TrainingJob, calibration_sample, parity_sample
from models.training.config import Recipe
from models.training.families import family_of
from models.training.families.base import Data, Evaluated, ModelFamily
from models.training.progress import ReportStage
from models.training.unfinished import CHECKPOINT, Trained, advice, is_trained, read_trained

log = logging.getLogger("flywheel.training")

CORPUS, BUNDLE = "corpus", "bundle"
"""names in a work folder"""

_RETRAINING = "retrain-"
_MAX_UNKNOWN = 0.02  # a share of unknown tokens that says: this base was made for other texts
_LOGGED_PARITY = ("labels_moved", "mean_cosine", "max_difference", "max_batch_difference")


def build_candidate(job: TrainingJob, home: Path, report: ReportStage) -> TrainedCandidate:
    """Fine-tune, export, check parity and evaluate. Nothing outside `home/work` changes.

    Raises DatasetError, BundleError, CheckpointError or ParityError, each with a message for the user.
    """
    family = family_of(job.task)
    if job.resume is not None:
        return _resumed(family, job, job.resume, home, report)
    with own_work_folder(job, home) as folder:
        recipe = family.recipe(job, home)
        data = family.load(job, home, recipe)
        # Now, since the user's file may change during the training.
        data.save_corpus(folder / f"{CORPUS}{family.corpus_ending}")
        report("loading", 0, 0)  # importing torch takes seconds: the data is checked before it
        recipe, notes = recipe_for_base(job, recipe)
        notes = [*notes, *family.notes(job, home, data, recipe)]
        losses = family.train(job, home, data, recipe, folder / CHECKPOINT, report)
        trained = Trained(
            task=job.task, precision=job.precision, recipe=asdict(recipe), losses=losses, lineage=data.lineage,
            notes=tuple(notes),
        )  # fmt: skip
        if job.parent is None:
            trained.write(folder)
            if data.report is not None:
                data.report.write(training_folder(folder / CHECKPOINT))
        return _candidate(family, trained, data, folder, report)


def _resumed(
    family: ModelFamily[Data], job: TrainingJob, folder: Path, home: Path, report: ReportStage
) -> TrainedCandidate:
    """The candidate of a training that ended after its checkpoint was complete."""
    trained = read_trained(folder, job.task)
    _keep_corpus(folder, home, job.task, trained.lineage)
    shutil.rmtree(folder / BUNDLE, ignore_errors=True)
    with _told_if_trained(folder, job.task):
        return _candidate(family, trained, family.load_kept(job, home, trained.lineage), folder, report)


def _candidate(
    family: ModelFamily[Data], trained: Trained, data: Data, folder: Path, report: ReportStage
) -> TrainedCandidate:
    """Export and evaluate the checkpoint in the work folder `folder`."""
    report("exporting", 0, 0)
    job, recipe = TrainingJob(trained.task, precision=trained.precision), Recipe(**trained.recipe)
    bundle, evaluated = _export_or_fp32(family, job, data, recipe, folder, trained.notes)
    return TrainedCandidate(
        task=job.task,
        bundle=bundle.path,
        parameters={**asdict(recipe), "precision": bundle.manifest.precision},
        metrics={**evaluated.metrics, **_parity_metrics(bundle)},
        losses=trained.losses,
        lineage=data.lineage,
        confusion=evaluated.confusion,
        report=data.report,
        notes=bundle.manifest.notes,
    )


def _export_or_fp32(
    family: ModelFamily[Data], job: TrainingJob, data: Data, recipe: Recipe, folder: Path, notes: Sequence[str]
) -> tuple[Bundle, Evaluated]:
    """As `export`, in the work folder `folder`; a model that int8 or fp16 changes too much is exported in fp32.

    A training may have taken hours, and its model is right: it is only slower than it could be. A note says so.
    """

    def tried(job: TrainingJob, *more: str) -> tuple[Bundle, Evaluated]:
        return export(family, job, data, recipe, folder / CHECKPOINT, folder / BUNDLE, (*notes, *more))

    try:
        return tried(job)
    except ParityError as error:
        if job.precision == "fp32":
            raise
        note = f"{error} It is exported in fp32 instead, which takes two to three times as long to answer on a CPU."
        log.warning("%s: %s", job.task, note)
        return tried(replace(job, precision="fp32"), note)


def recipe_for_base(job: TrainingJob, recipe: Recipe) -> tuple[Recipe, Sequence[str]]:
    """The recipe for what its base can do, and what the user should know of the difference. Raises CheckpointError.

    A job with a parent continues from a checkpoint that was exported before.
    """
    from export.to_onnx import check_base

    if job.parent is not None:
        return recipe, ()
    checked = check_base(recipe.base, recipe.max_length)
    return replace(recipe, max_length=checked.max_length), checked.notes


def export(
    family: ModelFamily[Data],
    job: TrainingJob,
    data: Data,
    recipe: Recipe,
    checkpoint: Path,
    out: Path,
    notes: Sequence[str] = (),
) -> tuple[Bundle, Evaluated]:
    """Export a checkpoint to a bundle at `out`, check its parity with the checkpoint, evaluate it on the holdout.

    Raises ParityError when the outputs of the exported model differ from the checkpoint's.
    """
    from export.to_onnx import exported

    fields = manifest_fields(family, job, data, recipe, notes)
    calibration = calibration_sample(data.texts, recipe.seed)
    with exported(checkpoint, fields=fields, calibration=calibration, precision=job.precision) as model:
        parity = model.parity(parity_sample(data.holdout_texts, recipe.seed))
        evaluated = family.evaluate(job.task, data, model.model, checkpoint)
        told = [
            *_unknown_note(model.model.encoder.unknown(calibration)),
            *confidence_notes(model.model.bundle.manifest),
        ]
        return (
            model.write(
                out,
                parity=parity,
                metrics=evaluated.metrics,
                assets=evaluated.assets,
                towers=evaluated.towers,
                notes=told,
            ),
            evaluated,
        )


def manifest_fields(
    family: ModelFamily[Data], job: TrainingJob, data: Data, recipe: Recipe, notes: Sequence[str]
) -> dict[str, Any]:
    """What a bundle's manifest has of its training."""
    return {
        "task": job.task,
        "kind": family.kind,
        "labels": data.labels,
        "max_length": recipe.max_length,
        "base_model": recipe.base,
        "data": data.lineage,
        "notes": notes,
    }


def _unknown_note(unknown: Unknown) -> list[str]:
    if unknown.share < _MAX_UNKNOWN:
        return []
    most = ", ".join(map(repr, unknown.most_common))
    return [
        f"{unknown.share:.1%} of the tokens of the training texts are unknown to the base's tokenizer, most often "
        f"{most}: the model cannot tell them apart. Give a base that knows them, such as one for their language."
    ]


def confidence_notes(manifest: Manifest) -> list[str]:
    """What no score reaches, as sentences."""
    found = measured(manifest)
    if found is None:
        return []
    bounds = (("high", found.high, found.asked_high), ("medium", found.medium, found.asked_medium))
    return [
        f"No answer has {word} confidence: {found.texts} validation texts do not show that those with the highest "
        f"scores are right in {asked:.0%}. Train with more texts, or ask for less "
        f"(tasks.{manifest.task}.confidence.{word} in flywheel.yaml)."
        for word, bound, asked in bounds
        if bound is None
    ]


def export_checkpoint(job: TrainingJob, home: Path, checkpoint: Path, out: Path, trained: Manifest | None) -> Bundle:
    """Export an existing checkpoint with the job's precision, and evaluate it on the job's data.

    `trained` is the manifest of the version's bundle, which says the base, the length of texts and, for a job without
    data, which of the corpora in `home` it is; None if it is lost.

    Raises CheckpointError, DatasetError or ParityError, each with a message for the user.
    """
    family = family_of(job.task)
    data = family.load_for_export(job, home, checkpoint, trained.data if trained else None)
    recipe = Recipe(max_length=get_task(job.task).max_length)
    if trained is not None:
        recipe = replace(recipe, base=trained.base_model, max_length=trained.max_length)
    return export(family, job, data, recipe, checkpoint, out)[0]


def register_candidate(
    candidate: TrainedCandidate,
    home: Path,
    artifacts: Sequence[Path] = (),
    *,
    mlflow: bool = True,
    release: Callable[[str], object] | None = None,
) -> str:
    """Make the candidate a version, and log it with `artifacts`, folders, to MLflow. The new version.

    Whatever fails once the bundle exists is only warned about: models/releases/versions.py. Without `mlflow`, the
    task's next training logs it. `release` is called with a version that is not the task's first, before that.
    """
    from models.releases.versions import add_version, place_version

    folder = candidate.bundle.parent
    checkpoint = folder / CHECKPOINT
    record = TrainingRecord(
        parameters=candidate.parameters, metrics=candidate.metrics, losses=candidate.losses, lineage=candidate.lineage
    )
    with _told_if_trained(folder, candidate.task):
        # Before the version exists, which cannot be continued from without its corpus.
        _keep_corpus(folder, home, candidate.task, candidate.lineage)
        _write_training_files(candidate, record, training_folder(checkpoint), artifacts)
        if mlflow:
            version = add_version(home, candidate.task, candidate.bundle, checkpoint, record, release)
        else:
            version = place_version(home, candidate.task, candidate.bundle, checkpoint)
    shutil.rmtree(folder, ignore_errors=True)
    return version


def _keep_corpus(folder: Path, home: Path, task: str, lineage: Lineage) -> None:
    """Move the corpus of a training to its place, unless it is there."""
    for corpus in folder.glob(f"{CORPUS}.*"):
        place = corpus_file(home, task, lineage.fingerprint, corpus.suffix)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(corpus, place)


def _write_training_files(
    candidate: TrainedCandidate, record: TrainingRecord, training: Path, artifacts: Sequence[Path]
) -> None:
    """Write what MLflow gets beside the bundle. What cannot be written or drawn is left out with a warning."""
    from models.evaluation.confusion import Confusion, write_picture, write_table

    training.mkdir(parents=True, exist_ok=True)
    steps: list[Callable[[], object]] = [partial(record.write, training)]
    steps += [partial(shutil.copytree, folder, training / folder.name) for folder in artifacts]
    if candidate.report is not None:
        steps.append(partial(candidate.report.write, training))
    if candidate.confusion is not None:
        confusion = Confusion(*candidate.confusion)
        steps += [partial(write_table, confusion, training), partial(write_picture, confusion, training)]
    for step in steps:
        try:
            step()
        except Exception as error:  # drawing raises many types, a full disk OSError: the version is worth more
            log.warning("%s: a file about the training is missing: %s: %s", candidate.task, type(error).__name__, error)


def remove_interrupted_runs(home: Path, task: str) -> None:
    """Delete the work folders of the task's killed retrainings: their checkpoints may have learned erased samples.

    The caller must hold the task's retraining lock.
    """
    for folder in work_folder(home).glob(
        f"{_RETRAINING}{task}-????????"
    ):  # mkdtemp's eight characters: matches no other task
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def own_work_folder(job: TrainingJob, home: Path) -> Iterator[Path]:
    """A new work folder for the job. It holds the candidate; when the block raises, only a trained one is kept."""
    work = work_folder(home)
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=work, prefix=f"{_RETRAINING if job.parent else ''}{job.task}-"))
    try:
        with _told_if_trained(folder, job.task):
            yield folder
    except BaseException:
        if not is_trained(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _told_if_trained(folder: Path, task: str) -> Iterator[None]:
    """When the block raises, and the training in `folder` can be resumed, say how."""
    try:
        yield
    except BaseException:
        if is_trained(folder):
            log.error("%s: %s", task, advice(folder, task))
        raise


def _parity_metrics(bundle: Bundle) -> dict[str, float]:
    parity = bundle.manifest.parity.model_dump()
    return {f"parity.{name}": parity[name] for name in _LOGGED_PARITY if name in parity}
