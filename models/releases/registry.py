"""MLflow: one run a training, one registered model a task, the aliases `champion` and `challenger`."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from export.files import exclusive_lock
from models.home import mlflow_artifacts, mlflow_database, mlflow_lock, sqlite_url
from models.releases.record import TrainingRecord
from models.releases.release import read_release, write_aliased

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("flywheel.registry")

CHAMPION, CHALLENGER = "champion", "challenger"
_BUNDLE = "bundle"
_DRAFT = ".mlflow.db."
_MAX_BATCH = 1000  # metrics that MLflow takes at once


class Reservation(NamedTuple):
    """A version that MLflow has numbered, and the run that it is of."""

    version: str
    run_id: str


def is_installed() -> bool:
    """Whether there is MLflow here; an installation that only serves has none."""
    return importlib.util.find_spec("mlflow") is not None


class Registry:
    """The MLflow store under `home`, or the one that MLFLOW_TRACKING_URI names; opened at the first use of it."""

    def __init__(self, home: Path):
        self.home = home
        self._artifacts = mlflow_artifacts(home)

    @cached_property
    def _client(self) -> MlflowClient:
        return _open(self._mlflow, self._uri)

    @cached_property
    def _mlflow(self) -> Any:
        """MLflow's module, whose store is this one from here on."""
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # MLflow's own 7 attempts take four minutes where a server is away, and nothing here depends on an answer.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        import mlflow

        # It logs each error of the database with its traceback, and raises it too.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        given = os.environ.get("MLFLOW_TRACKING_URI") or None  # a Compose file sets it, empty, where nobody gave one
        if given is None:
            _ensure_database(mlflow, self.home)
        self._uri = given or sqlite_url(mlflow_database(self.home))
        mlflow.set_tracking_uri(self._uri)
        mlflow.set_registry_uri(self._uri)
        if given is None:
            # Set by MLflow itself; the next Registry would take it for the user's.
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        self._is_local = given is None
        return mlflow

    def reserve(self, task: str, record: TrainingRecord, unusable: Callable[[int], bool]) -> Reservation:
        """Begin the run of a training, and register its bundle, not yet logged, as a new version of the task.

        MLflow numbers it; numbers that are `unusable` are left out. Raises what MLflow, its database driver and the
        network raise, which is many types.
        """
        self._set_experiment(task)
        name = self._ensure_model(task)
        experiment = self._client.get_experiment_by_name(task).experiment_id
        run = self._client.create_run(experiment, run_name=f"train-{task}").info
        source = f"{run.artifact_uri.rstrip('/')}/{_BUNDLE}"
        tags = {"data.fingerprint": record.lineage.fingerprint, "data.name": record.lineage.name}

        def number() -> str:
            return str(self._client.create_model_version(name, source, run.run_id, tags=tags).version)

        skipped = []
        while unusable(int(version := number())):
            skipped.append(version)
        for left_out in skipped:
            self._client.delete_model_version(name, left_out)
        return Reservation(version, run.run_id)

    def newest(self, task: str) -> int:
        """The highest number of the task's versions, 0 without one."""
        found = self._client.search_model_versions(f"name='{task}'", order_by=["version_number DESC"], max_results=1)
        return max((int(version.version) for version in found), default=0)

    def cancel(self, task: str, reservation: Reservation) -> None:
        """Delete a version that was reserved and not used; its run is marked failed."""
        self._client.delete_model_version(task, reservation.version)
        self._client.set_terminated(reservation.run_id, "FAILED")

    def log(self, run_id: str, record: TrainingRecord, training: Path, bundle: Path) -> None:
        """Log parameters, metrics, losses, the files in `training` and the bundle to a run. May be repeated."""
        self._client.log_batch(run_id, params=_params(self._mlflow, record), metrics=_metrics(self._mlflow, record))
        now = int(time.time() * 1000)
        losses = [self._mlflow.entities.Metric("loss", loss, now, step) for step, loss in record.losses]
        for at in range(0, len(losses), _MAX_BATCH):
            self._client.log_batch(run_id, metrics=losses[at : at + _MAX_BATCH])
        self._client.log_artifacts(run_id, str(training))
        self._client.log_artifacts(run_id, str(bundle), _BUNDLE)
        self._client.set_terminated(run_id)

    def withdraw(self, task: str, version: str) -> None:
        """Delete a version's bundle in MLflow, and the version there. The run stays."""
        run = self._client.get_run(self._client.get_model_version(task, version).run_id)
        self._client.delete_model_version(task, version)
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(run.info.artifact_uri).delete_artifacts(_BUNDLE)
        self._client.set_tag(run.info.run_id, "verdict", "withdrawn")

    def log_refused(
        self,
        task: str,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        artifacts: Sequence[Path],
        reason: str,
    ) -> str:
        """Log a refused candidate as a run with its gate report. It does not become a version. The run's id."""
        self._set_experiment(task)
        with self._mlflow.start_run(
            run_name=f"refused-{task}", tags={"verdict": "refused", "why": reason[:5000]}
        ) as run:
            self._mlflow.log_params(parameters)
            self._mlflow.log_metrics({key: value for key, value in metrics.items() if isinstance(value, int | float)})
            for folder in artifacts:
                self._mlflow.log_artifacts(str(folder), folder.name)
            return str(run.info.run_id)

    def follow(self, task: str) -> bool:
        """Set the aliases to the champion and challenger of the task's release file, which decides what serves.

        False, with a warning in the log, when MLflow fails: the move that the file records has been made all the same.
        """
        release = read_release(self.home, task)
        try:
            name = self._ensure_model(task)
            existing = self._client.get_registered_model(name).aliases
            for alias, version in ((CHAMPION, release.champion), (CHALLENGER, release.challenger)):
                self._set_alias(name, alias, version, existing)
        except Exception as error:  # MLflow, its database driver and the network raise many types
            log.warning(
                "MLflow's aliases of %s could not be set to its release: %s: %s", task, type(error).__name__, error
            )
            return False
        write_aliased(self.home, release)
        return True

    def _set_alias(self, name: str, alias: str, version: str | None, existing: Mapping[str, str]) -> None:
        if version is None:
            if alias in existing:
                self._client.delete_registered_model_alias(name, alias)
            return
        try:
            self._client.set_registered_model_alias(name, alias, version)
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            # The bundle is what serves: a lost registry must not prevent a rollback.
            log.warning("MLflow does not know %s version %s: %s", name, version, error)

    def _set_experiment(self, task: str) -> None:
        if self._client.get_experiment_by_name(task) is None:
            local = (self._artifacts / task).resolve().as_uri() if self._is_local else None
            self._client.create_experiment(task, artifact_location=local)
        self._mlflow.set_experiment(task)

    def _ensure_model(self, task: str) -> str:
        if not self._client.search_registered_models(filter_string=f"name='{task}'"):
            self._client.create_registered_model(task)
        return task


def _ensure_database(mlflow: Any, home: Path) -> None:
    """Make MLflow's database unless there is one: complete or not at all, and once, by whatever processes want it.

    MLflow makes its tables step by step. A second process that takes the same steps, or one killed between two of
    them, would leave a database that MLflow can neither use nor mend.
    """
    database = mlflow_database(home)
    if database.exists():
        return
    with exclusive_lock(mlflow_lock(home)):
        if database.exists():
            return
        for draft in home.glob(f"{_DRAFT}*"):  # by a process that was killed
            draft.unlink()
        draft = home / f"{_DRAFT}{uuid.uuid4().hex[:8]}"
        _open(mlflow, sqlite_url(draft))
        os.replace(draft, database)


def _open(mlflow: Any, uri: str) -> MlflowClient:
    """A client of a store, whose tables MLflow makes first in an SQLite file that has none."""
    client: MlflowClient = mlflow.MlflowClient(uri, uri)
    if uri.startswith("sqlite:"):  # MLflow also makes the folder that the path, quoted as it is, would name
        with suppress(OSError):
            Path(uri.removeprefix("sqlite:///")).parent.rmdir()
    return client


def _params(mlflow: Any, record: TrainingRecord) -> list[Any]:
    origin = {f"data.{key}": value for key, value in record.lineage.model_dump().items()}
    return [mlflow.entities.Param(key, str(value)) for key, value in {**record.parameters, **origin}.items()]


def _metrics(mlflow: Any, record: TrainingRecord) -> list[Any]:
    now = int(time.time() * 1000)
    return [
        mlflow.entities.Metric(key, value, now, 0)
        for key, value in record.metrics.items()
        if isinstance(value, int | float)
    ]
