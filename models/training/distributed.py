"""Fine-tuning on several Ray Train workers: on one machine, or on several that share the home directory."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from models.training.config import Recipe
from models.training.finetune import finetune_classifier
from models.training.progress import ReportStage
from models.training.training_set import TrainingSet


class WorkersError(Exception):
    """Raised when the workers cannot be started, or one of them fails; the message says what to do."""


def finetune_on_workers(
    workers: int, training_set: TrainingSet, recipe: Recipe, out: Path, report: ReportStage, start: Path | None = None
) -> list[tuple[int, float]]:
    """`finetune_classifier` with each batch divided among `workers`, whose gradients are averaged (DDP).

    Each worker takes one CPU of the Ray cluster, or one GPU where there are GPUs. The workers read `start` and write
    `out` at the same paths as the caller. Raises WorkersError.
    """
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise WorkersError(f"Several workers need pip install 'flywheel-serve[workers]': {error}") from None
    import torch

    config: dict[str, Any] = {
        "training_set": training_set,
        "recipe": replace(recipe, batch=max(1, recipe.batch // workers), threads=1),
        "out": out,
        "report": report,
        "start": start,
        "nice": os.nice(0),
    }
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="ray-train-") as scratch:
        config["losses"] = Path(scratch) / "losses.json"  # Ray Train reports metrics with its own checkpoints only
        trainer = TorchTrainer(
            _train,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available()),
            run_config=RunConfig(storage_path=scratch),
        )
        try:
            trainer.fit()
        except Exception as error:  # Ray Train wraps whatever a worker raised
            raise WorkersError(f"Training on {workers} workers failed: {error}") from error
        return [(step, loss) for step, loss in orjson.loads(config["losses"].read_bytes())]


def _train(config: dict[str, Any]) -> None:
    """The training loop of one worker. All end with the same weights; only rank 0 writes `out` and reports."""
    from ray import train

    os.nice(config["nice"] - os.nice(0))  # the caller's priority, below that of serving
    is_first = train.get_context().get_world_rank() == 0
    with tempfile.TemporaryDirectory() as scratch:
        out = config["out"] if is_first else Path(scratch) / "checkpoint"
        report: ReportStage = config["report"] if is_first else lambda *_: None
        losses = finetune_classifier(config["training_set"], config["recipe"], out, report, config["start"])
    if is_first:
        config["losses"].write_bytes(orjson.dumps(losses))
