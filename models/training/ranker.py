"""A ranker, from users' interactions, to a candidate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.bundle import Bundle
from export.session import OnnxSession
from models.data.dataset import DatasetError
from models.tasks.base import get_task
from models.training.candidate import CORPUS, Candidate, Job, calibration_sample, evaluated_candidate, manifest_fields
from models.training.config import Recipe
from models.training.progress import Stage

if TYPE_CHECKING:
    from models.data.interactions import Behaviour


def train_ranker(job: Job, folder: Path, report: Stage) -> Candidate:
    from models.data.interactions import keep_behaviour, load_behaviour

    if job.parent and job.behaviour is None:
        raise DatasetError(f"{job.task} is a ranker: it continues with behaviour, not with labels.")
    behaviour = job.behaviour or load_behaviour(job.data)
    if job.behaviour is None:  # at once, or it might be another file by then
        keep_behaviour(job.data, folder / CORPUS)
    report("loading", 0, 0)
    from models.training.fit_ranker import tower_matrices
    from models.training.item_tower import fit_tower

    recipe = replace(Recipe(max_length=get_task(job.task).max_length), **dict(job.recipe))
    checkpoint = folder / "checkpoint"
    texts = [item.text for item in behaviour.items.values()]
    shown, chosen = tower_matrices(behaviour)
    losses = fit_tower(texts, shown, chosen, recipe, checkpoint, report)
    report("exporting", 0, 0)
    bundle = export_ranker(job, behaviour, recipe, checkpoint, folder / "bundle")
    return evaluated_candidate(job, bundle, recipe, losses, _lineage(job, behaviour), None)


def export_ranker(job: Job, behaviour: Behaviour, recipe: Recipe, checkpoint: Path, out: Path) -> Bundle:
    from export.to_onnx import export_bundle
    from models.training.fit_ranker import fit_ranker

    texts = [item.text for item in behaviour.items.values()]

    def finish(session: OnnxSession) -> tuple[dict[str, float], dict[str, Any]]:
        ranker, metrics = fit_ranker(behaviour, session)
        return metrics, {"ranker": ranker.to_asset()}

    calibration = calibration_sample(texts, recipe.seed)
    fields = manifest_fields(job, recipe, [], _lineage(job, behaviour))
    return export_bundle(
        checkpoint, out, fields=fields, calibration=calibration, holdout=texts, finish=finish, precision=job.precision
    )


def _lineage(job: Job, behaviour: Behaviour) -> dict[str, Any]:
    return behaviour.lineage() | ({"parent": job.parent} if job.parent else {})
