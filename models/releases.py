"""Which version of a task serves: one small file a task, all that a server needs to start.

The registry (MLflow) is where versions are compared and promoted; what it decided is written here, next to the
bundles, so that serving survives the loss of the registry.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class ReleaseError(Exception):
    """Raised when a release file is missing or unreadable, or names a version that is not there."""


class Release(BaseModel):
    """`versions` maps each loaded version to its bundle, relative to the home directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    champion: str
    versions: dict[str, str]

    @model_validator(mode="after")
    def _champion_is_loaded(self) -> Self:
        if self.champion not in self.versions:
            raise ValueError(f"the champion {self.champion!r} is not among the versions")
        return self


def release_path(home: Path, task: str) -> Path:
    return home / "releases" / f"{task}.json"


def read_release(home: Path, task: str) -> Release:
    """Raises ReleaseError when the task has none, or the file is damaged."""
    path = release_path(home, task)
    try:
        return Release.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ReleaseError(f"{task} has no released version yet. Run: flywheel train {task}") from None
    except ValidationError as error:
        raise ReleaseError(
            f"{path} is damaged ({error.errors()[0]['msg']}). Run: flywheel promote {task} VERSION"
        ) from error


def local_versions(home: Path, task: str) -> list[str]:
    """Versions of a task whose bundles are here, oldest first."""
    return sorted((p.name for p in (home / "bundles" / task).glob("*") if p.name.isdecimal() and p.is_dir()), key=int)


def release_of(home: Path, task: str, version: str) -> Release:
    """The release in which `version` is champion. Raises ReleaseError when its bundle is not here."""
    known = local_versions(home, task)
    if version not in known:
        raise ReleaseError(f"{task} has no version {version!r}; there are: {', '.join(known) or 'none'}.")
    return Release(task=task, champion=version, versions={version: f"bundles/{task}/{version}"})


def write_release(home: Path, release: Release) -> None:
    """Replace the task's release file in one step; a crash leaves the old one or the new one, never half."""
    path = release_path(home, release.task)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    with draft.open("w", encoding="utf-8") as file:
        file.write(release.model_dump_json(indent=2))
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
