"""Which versions of a task serve, and how: one small file a task, all that a server needs to start.

The registry (MLflow) is where versions are compared; what was decided is written here, next to the bundles, so that
serving survives the loss of the registry and of the database.
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
    """Raised when a release file is missing or unreadable, or a move is asked for that cannot be made."""


class ReleaseChanged(ReleaseError):
    """Raised instead of a move when the release is no longer the one that the mover had looked at."""


class Release(BaseModel):
    """`versions` maps each loaded version to its bundle, relative to the home directory.

    The champion answers. A challenger in `shadow` answers too, unseen; as a `canary` it answers `share` of the users.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    champion: str
    versions: dict[str, str]
    challenger: str | None = None
    mode: Mode | None = None
    share: float = Field(0.0, ge=0, le=1)
    previous: str | None = None
    """the champion before this one: what a rollback returns to"""
    promoted: datetime | None = None
    """when the champion became it, where it has replaced another"""

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
        """What the registry calls this version: champion, challenger, or nothing."""
        if version == self.champion:
            return "champion"
        return "challenger" if version == self.challenger else None

    def traffic(self, version: str) -> float:
        """The share (0 to 1) of the requests that name no version which this one answers."""
        share = self.share if self.mode == "canary" else 0.0
        if version == self.champion:
            return 1.0 - share
        return share if version == self.challenger else 0.0


def read_release(home: Path, task: str) -> Release:
    """Raises ReleaseError when the task has none, or the file is damaged."""
    path = release_file(home, task)
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
    return sorted((p.name for p in bundles_folder(home, task).glob("*") if p.name.isdecimal() and p.is_dir()), key=int)


def ancestry(home: Path, task: str, version: str) -> list[str]:
    """The version and those that it continues from, newest first, as far back as their bundles are here."""
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
    """A release of versions that are here. Raises ReleaseError when a bundle is not."""
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
    """Replace the task's release file in one step; a crash leaves the old one or the new one, never half."""
    _replace(release_file(home, release.task), release)


def read_aliased(home: Path, task: str) -> Release | None:
    """The release that the registry's aliases were last brought after; None where nobody has written that down."""
    try:
        return Release.model_validate_json(aliased_release_file(home, task).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_aliased(home: Path, release: Release) -> None:
    _replace(aliased_release_file(home, release.task), release)


def _replace(path: Path, release: Release) -> None:
    write_atomically(path, release.model_dump_json(indent=2).encode())


def one_move_at_a_time(home: Path, task: str) -> AbstractContextManager[object]:
    """Held while a release is read, changed and written, by whichever process moves it."""
    return exclusive_lock(release_lock(home, task))
