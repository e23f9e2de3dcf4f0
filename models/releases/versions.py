"""New versions: a trained bundle is moved to its place first, and MLflow is told afterwards.

Whatever fails after a training (a registry that is away, a full disk of artifacts, a figure) is warned about and can be
repeated: `flywheel register`, and the next training does it too. docs/decisions/0033-any-corpus.md
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from export.bundle import Bundle
from export.errors import BundleError
from export.packed import packed_folder, packed_model
from models.home import bundle_folder, checkpoint_folder, gate_report_file, training_folder
from models.releases.record import Logged, TrainingRecord, forget_logged, read_logged, read_record
from models.releases.release import ReleaseError, local_versions, make_release, read_release, write_release

if TYPE_CHECKING:
    from models.releases.registry import Registry, Reservation

log = logging.getLogger("flywheel.registry")


Release = Callable[[str], object]
"""releases a version that has just been placed"""


def add_version(
    home: Path, task: str, bundle: Path, checkpoint: Path, record: TrainingRecord, release: Release | None = None
) -> str:
    """Move bundle and checkpoint to their places as the task's next version, and tell MLflow. The new version.

    MLflow numbers the version; when it fails, the version gets the next number that is free here, and a warning says
    how to register it later. A task's first version becomes champion; a later one only serves after a move, for which
    `release` is called before MLflow gets the files. Raises OSError when the disk does not take the files; then they
    are where they were, and no version is added.
    """
    interrupt: BaseException | None = None
    registry, reservation = None, None
    try:
        registry = _open(home)
        _register_pending(home, task, registry)
        reservation = _reserve(home, task, record, registry)
    except Exception as error:  # MLflow, its database driver and the network raise many types
        _warn(task, "", error)
    except BaseException as error:  # somebody lost patience with MLflow: keep the work, then end
        interrupt = error
    try:
        forget_logged(checkpoint)
        if reservation is not None:  # now, for a process that ends before it has logged the version
            Logged(run_id=reservation.run_id).write(checkpoint)
        version = _take_over(home, task, bundle, checkpoint, reservation.version if reservation else None, release)
    except OSError:  # a version that MLflow knows and that has no files could be promoted
        if registry is not None and reservation is not None:
            with suppress(Exception):  # MLflow's database may be on the same full disk
                registry.cancel(task, reservation)
        raise
    if interrupt is not None:
        raise interrupt
    if registry is not None and reservation is not None:
        try:
            _log(home, task, version, record, registry, reservation.run_id)
        except Exception as error:
            _warn(task, version, error)
        registry.follow(task)
    else:
        log.warning("%s version %s is not in MLflow. To add it: flywheel register %s %s", task, version, task, version)
    return version


def place_version(home: Path, task: str, bundle: Path, checkpoint: Path) -> str:
    """As `add_version`, without MLflow: the next training of the task registers this version too, before its own.

    Importing MLflow and creating its database take longer than a first version does.
    """
    return _take_over(home, task, bundle, checkpoint, None)


def register_version(home: Path, task: str, version: str) -> None:
    """Add a version to MLflow that is not, or not completely, in it, under its number.

    Raises ReleaseError when there is no record of its training, MLflow has given its number to another version, or
    MLflow fails.
    """
    record = read_record(training_folder(checkpoint_folder(home, task, version)))
    if version not in local_versions(home, task) or record is None:
        known = ", ".join(local_versions(home, task)) or "none"
        raise ReleaseError(f"{task} has no version {version!r} with a record of its training here; there are: {known}.")
    try:
        registry = _open(home)
        _register(home, task, version, record, registry)
    except ReleaseError:
        raise
    except Exception as error:  # MLflow, its database driver and the network raise many types
        raise ReleaseError(f"{task} version {version} is not in MLflow yet: {_first_line(error)}") from error
    registry.follow(task)


def withdraw_version(home: Path, task: str, version: str) -> None:
    """Delete a version that must never serve: its checkpoint and its bundle, also in MLflow, if it answers."""
    bundle = bundle_folder(home, task, version)
    for folder in (bundle, checkpoint_folder(home, task, version), packed_folder(bundle)):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        _open(home).withdraw(task, version)
    except Exception as error:  # MLflow, its database driver and the network raise many types
        log.warning("%s version %s is deleted here, but not in MLflow: %s", task, version, error)


def _open(home: Path) -> Registry:
    from models.releases.registry import Registry

    return Registry(home)


def _reserve(home: Path, task: str, record: TrainingRecord, registry: Registry) -> Reservation:
    taken = _numbers(home, task)

    def is_taken(number: int) -> bool:
        if number in taken:
            log.warning("%s version %s is here already, though MLflow did not know it; taking the next", task, number)
        return number in taken

    return registry.reserve(task, record, is_taken)


def _register_pending(home: Path, task: str, registry: Registry) -> None:
    """Add versions that MLflow missed, before it gives the next number to another one."""
    for version in local_versions(home, task):
        if (record := read_record(training_folder(checkpoint_folder(home, task, version)))) is not None:
            try:
                _register(home, task, version, record, registry)
            except ReleaseError as error:
                log.warning("%s", error)


def _register(home: Path, task: str, version: str, record: TrainingRecord, registry: Registry) -> None:
    logged = read_logged(checkpoint_folder(home, task, version))
    if logged is not None and logged.complete:
        return
    if logged is not None:
        run_id = logged.run_id
    else:
        outside = ReleaseError(
            f"MLflow has another {task} version {version} already: this one stays outside the registry, and serves all "
            "the same."
        )
        if registry.newest(task) >= int(version):
            raise outside
        reservation = registry.reserve(task, record, lambda number: number < int(version))
        if reservation.version != version:  # another was deleted, or has just been added
            registry.cancel(task, reservation)
            raise outside
        run_id = reservation.run_id
    _log(home, task, version, record, registry, run_id)


def _log(home: Path, task: str, version: str, record: TrainingRecord, registry: Registry, run_id: str) -> None:
    checkpoint = checkpoint_folder(home, task, version)
    Logged(run_id=run_id).write(checkpoint)  # what fails below is repeated in this run
    registry.log(run_id, record, training_folder(checkpoint), bundle_folder(home, task, version))
    Logged(run_id=run_id, complete=True).write(checkpoint)


def _warn(task: str, version: str, error: Exception) -> None:
    if version:
        log.warning("%s version %s is complete, but its run in MLflow is not: %s. To complete it: flywheel register %s "
                    "%s", task, version, _first_line(error), task, version)  # fmt: skip
    else:
        log.warning("%s: MLflow fails: %s", task, _first_line(error))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _take_over(
    home: Path, task: str, bundle: Path, checkpoint: Path, number: str | None, release: Release | None = None
) -> str:
    """Move both to the version `number`, or to the next that is free here; `release` it, or if it is the first.

    The version. Raises OSError; then the files are where they were.
    """
    version = number or str(max(_numbers(home, task), default=0) + 1)
    served = bundle_folder(home, task, version)
    moves = ((checkpoint, checkpoint_folder(home, task, version)), (bundle, served))
    try:
        for folder, place in moves:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder, place)
        with suppress(BundleError):  # serving reports a bad bundle
            if (opened := Bundle.open(served)).manifest.has_encoder:
                packed_model(opened)  # now, to save replicas the work
        try:
            read_release(home, task)
        except ReleaseError:
            write_release(home, make_release(home, task, version))
        else:
            if release is not None:
                release(version)
    except OSError:
        for folder, place in moves:
            with suppress(OSError):
                os.rename(place, folder)
        shutil.rmtree(packed_folder(served), ignore_errors=True)
        raise
    return version


def _numbers(home: Path, task: str) -> set[int]:
    """Numbers that versions have or had here."""
    folders = (bundle_folder(home, task, "0"), checkpoint_folder(home, task, "0"), gate_report_file(home, task, "0"))
    names = {path.stem for folder in folders for path in folder.parent.glob("*")}
    return {int(name) for name in names if name.isdecimal()}
