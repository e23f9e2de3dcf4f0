"""Trainings that ended between the last step and their version: `flywheel train TASK --resume FOLDER` goes on there.

An export, an evaluation or a move may fail, or the process be killed, after hours of training. The checkpoint stays in
its work folder with what is needed to go on. Not that of a retraining, which may have learned erased corrections.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from export.bundle import Lineage, Precision
from export.errors import CheckpointError
from export.files import write_atomically
from models.home import work_folder

CHECKPOINT = "checkpoint"
_FILE = "trained.json"


class Trained(BaseModel):
    """A training whose checkpoint is complete: how it was trained, and on what."""

    model_config = ConfigDict(frozen=True)

    task: str
    precision: Precision
    recipe: dict[str, Any]
    losses: list[tuple[int, float]]
    lineage: Lineage
    notes: tuple[str, ...]

    def write(self, folder: Path) -> None:
        write_atomically(folder / _FILE, self.model_dump_json().encode())


def read_trained(folder: Path, task: str) -> Trained:
    """The training of `task` that the work folder `folder` has. Raises CheckpointError when there is none."""
    try:
        trained = Trained.model_validate_json((folder / _FILE).read_bytes()) if is_trained(folder) else None
    except (OSError, ValidationError):
        trained = None
    if trained is None:
        raise CheckpointError(
            f"{folder} has no complete training to resume. Give a folder that a failed `flywheel train` named."
        )
    if trained.task != task:
        raise CheckpointError(f"{folder} is a training of {trained.task}, not of {task}.")
    return trained


def is_trained(folder: Path) -> bool:
    """Whether the work folder has a complete checkpoint that can be resumed from; not once it became a version."""
    return (folder / _FILE).is_file() and (folder / CHECKPOINT).is_dir()


def advice(folder: Path, task: str) -> str:
    """What to do with the work folder of an unfinished training."""
    return (
        f"The trained checkpoint is kept. To go on from there: flywheel train {task} --resume {folder} "
        "(to give it up, delete that folder)"
    )


def unfinished_trainings(home: Path, task: str) -> list[Path]:
    """Work folders of the task with a complete checkpoint; one of them may belong to a training that still runs."""
    return sorted(folder for folder in work_folder(home).glob(f"{task}-????????") if is_trained(folder))
