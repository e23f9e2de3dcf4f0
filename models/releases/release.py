"""Which versions of a task serve, and how: one small file a task. With the bundles, it is all a server needs to start.

Versions are compared in the registry (MLflow). The decision is stored here, next to the bundles, so that serving
survives the loss of the registry and of the database.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from export.bundle import read_manifest
from export.errors import BundleError
from export.files import exclusive_lock, write_atomically
from models.home import aliased_release_file, bundle_folder, bundles_folder, release_file, release_lock

Mode = Literal["shadow", "canary"]


class ReleaseError(Exception):
    """Raised when a release file is missing or unreadable, or a requested move is impossible."""


class ReleaseChanged(ReleaseError):
    """Raised when the release is no longer the one on which a move was decided; nothing is changed."""


class Release(BaseModel):
    """The versions of a task that serve. `versions` maps each of them to its bundle, relative to the home directory.

    The champion answers. A challenger in `shadow` mode gets the same requests, but its answers are only logged; in
    `canary` mode it answers the requests of `share` (0 to 1) of the users.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    champion: str
    versions: dict[str, str]
    challenger: str | None = None
    mode: Mode | None = None
    share: float = Field(0.0, ge=0, le=1)
    previous: str | None = None
    """the champion before this one, to which a rollback returns"""
    promoted: datetime | None = None
    """when the champion was promoted; None for one that replaced no other"""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.champion not in self.versions:
            raise ValueError(f"the champion {self.champion!r} is not among the versions")
        if (self.challenger is None) != (self.mode is None):
            raise ValueError("a challenger needs a mode, and a mode a challenger")
        if self.challenger is not None and (self.challenger not in self.versions or self.challenger == self.champion):
            raise ValueError(f"the challenger {self.challenger!r} is not another one of the versions")
        return self

    def alias(self, version: str) -> str | None:
        """The registry's alias of this version: champion, challenger or None."""
        if version == self.champion:
            return "champion"
        return "challenger" if version == self.challenger else None

    def traffic(self, version: str) -> float:
        """The share (0 to 1) of the requests without an explicit version that `version` answers."""
        share = self.share if self.mode == "canary" else 0.0
        if version == self.champion:
            return 1.0 - share
        return share if version == self.challenger else 0.0


def read_release(home: Path, task: str) -> Release:
    """The task's release. Raises ReleaseError when it has none, or the file is damaged or cannot be read."""
    path = release_file(home, task)
    try:
        return Release.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ReleaseError(f"{task} has no released version yet. Run: flywheel train {task}") from None
    except OSError as error:
        raise ReleaseError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise ReleaseError(
            f"{path} is damaged ({error.errors()[0]['msg']}). Run: flywheel promote {task} VERSION"
        ) from error


def local_versions(home: Path, task: str) -> list[str]:
    """Versions of a task whose bundles are on this disk, oldest first."""
    return sorted((p.name for p in bundles_folder(home, task).glob("*") if p.name.isdecimal() and p.is_dir()), key=int)


def is_first_version(home: Path, task: str, version: str) -> bool:
    """Whether `version` is a task's first, quick one, without an encoder: models/training/first_version.py."""
    try:
        return not read_manifest(bundle_folder(home, task, version)).has_encoder
    except BundleError:
        return False


def awaits_encoder(home: Path, task: str) -> bool:
    """Whether the task's first version serves and no other exists.

    False where an operator went back to it from a version with an encoder.
    """
    try:
        read_release(home, task)
    except ReleaseError:
        return False
    versions = local_versions(home, task)
    return bool(versions) and all(is_first_version(home, task, version) for version in versions)


def ancestry(home: Path, task: str, version: str) -> list[str]:
    """The version and its ancestors (lineage parents), newest first, as far back as their bundles are on disk."""
    line: list[str] = []
    while version not in line:
        line.append(version)
        try:
            parent = read_manifest(bundle_folder(home, task, version)).data.parent
        except BundleError:
            break
        version = parent or version
    return line


def make_release(
    home: Path,
    task: str,
    champion: str,
    *,
    challenger: str | None = None,
    mode: Mode | None = None,
    share: float = 0.0,
    previous: str | None = None,
    promoted: datetime | None = None,
) -> Release:
    """A release of versions that are on disk. Raises ReleaseError when a bundle is missing."""
    known = local_versions(home, task)
    wanted = [version for version in (champion, challenger) if version is not None]
    for version in wanted:
        if version not in known:
            raise ReleaseError(f"{task} has no version {version!r}; there are: {', '.join(known) or 'none'}.")
    return Release(
        task=task,
        champion=champion,
        versions={version: bundle_folder(Path(), task, version).as_posix() for version in wanted},
        challenger=challenger,
        mode=mode,
        share=share,
        previous=previous,
        promoted=promoted,
    )


def write_release(home: Path, release: Release) -> None:
    """Replace the task's release file atomically."""
    _replace(release_file(home, release.task), release)


def read_aliased(home: Path, task: str) -> Release | None:
    """The release to which the registry's aliases were last set; None when that is unknown."""
    try:
        return Release.model_validate_json(aliased_release_file(home, task).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_aliased(home: Path, release: Release) -> None:
    _replace(aliased_release_file(home, release.task), release)


def _replace(path: Path, release: Release) -> None:
    write_atomically(path, release.model_dump_json(indent=2).encode())


def one_move_at_a_time(home: Path, task: str) -> AbstractContextManager[object]:
    """A lock between processes, to hold while a release is read, changed and written."""
    return exclusive_lock(release_lock(home, task))
