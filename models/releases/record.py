"""What a training tells MLflow, kept with the version's checkpoint so that it can be told later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from export.bundle import Lineage
from export.files import write_atomically

_FILE, _LOGGED = "training.json", ".mlflow"


class TrainingRecord(BaseModel):
    """Parameters, metrics and losses, (step, loss), of a training, and the origin of its version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    parameters: dict[str, Any]
    metrics: dict[str, Any]
    losses: list[tuple[int, float]]
    lineage: Lineage

    def write(self, training: Path) -> None:
        """Write `training.json` into the folder `training`."""
        write_atomically(training / _FILE, self.model_dump_json().encode())


def read_record(training: Path) -> TrainingRecord | None:
    """The record in the folder `training`; None when there is none, as for versions of older Flywheels."""
    try:
        return TrainingRecord.model_validate_json((training / _FILE).read_bytes())
    except (OSError, ValidationError):
        return None


class Logged(BaseModel):
    """How far MLflow has been told: the run of the version, and whether all of the record is in it."""

    run_id: str
    complete: bool = False

    def write(self, checkpoint: Path) -> None:
        """Remember it with the checkpoint."""
        write_atomically(checkpoint / _LOGGED, self.model_dump_json().encode())


def forget_logged(checkpoint: Path) -> None:
    """For a checkpoint that becomes a new version: an earlier attempt may have reserved another one for it."""
    (checkpoint / _LOGGED).unlink(missing_ok=True)


def read_logged(checkpoint: Path) -> Logged | None:
    """How far MLflow has been told of a checkpoint's version; None when not at all."""
    try:
        return Logged.model_validate_json((checkpoint / _LOGGED).read_bytes())
    except (OSError, ValidationError):
        return None
