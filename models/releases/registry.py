"""MLflow: one run a training, one registered model a task, the aliases `champion` and `challenger`."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.bundle import Bundle, Lineage
from export.errors import BundleError
from export.packed import packed_folder, packed_model
from models.home import bundle_folder, checkpoint_folder, mlflow_artifacts, mlflow_database, sqlite_url
from models.releases.release import (
    ReleaseError,
    local_versions,
    make_release,
    read_release,
    write_aliased,
    write_release,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

log = logging.getLogger("flywheel.registry")

CHAMPION, CHALLENGER = "champion", "challenger"


class Registry:
    """The MLflow store under `home`, or the one that MLFLOW_TRACKING_URI names."""

    def __init__(self, home: Path):
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        self.home = home
        # It logs each error of the database with its traceback, and raises it too.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self._artifacts = mlflow_artifacts(home)
        home.mkdir(parents=True, exist_ok=True)
        given = os.environ.get("MLFLOW_TRACKING_URI")
        uri = given or sqlite_url(mlflow_database(home))
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        if given is None:
            os.environ.pop(
                "MLFLOW_TRACKING_URI", None
            )  # set by MLflow itself; the next Registry would take it for the user's
        self._is_local = given is None
        self._mlflow: Any = mlflow
        self._client: MlflowClient = mlflow.MlflowClient()
        litter = Path(uri.removeprefix("sqlite:///")).parent
        if self._is_local and litter != home.resolve():  # MLflow also makes the folder that the quoted path would name
            with suppress(OSError):
                litter.rmdir()

    def register(
        self,
        task: str,
        bundle: Path,
        checkpoint: Path,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        losses: list[tuple[int, float]],
        figures: Mapping[str, Figure],
        lineage: Lineage,
        artifacts: Sequence[Path] = (),
    ) -> str:
        """Log the run, register its bundle as the task's next version, move bundle and checkpoint to their places.

        A task's first version becomes champion; a later one only serves after a move (rollout.py).
        `losses` are (step, loss), `artifacts` folders. The new version.
        """
        self._set_experiment(task)
        with self._mlflow.start_run(run_name=f"train-{task}") as run:
            origin = {f"data.{key}": value for key, value in lineage.model_dump().items()}
            self._mlflow.log_params({**parameters, **origin})
            self._mlflow.log_metrics({key: value for key, value in metrics.items() if isinstance(value, int | float)})
            for step, loss in losses:
                self._mlflow.log_metric("loss", loss, step=step)
            for name, figure in figures.items():
                self._mlflow.log_figure(figure, name)
            for folder in artifacts:
                self._mlflow.log_artifacts(str(folder), folder.name)
            self._mlflow.log_artifacts(str(bundle), "bundle")
            source = self._mlflow.get_artifact_uri("bundle")
        name = self._ensure_model(task)
        tags = {"data.fingerprint": lineage.fingerprint, "data.name": lineage.name}
        taken = local_versions(self.home, task)
        while (
            version := str(self._client.create_model_version(name, source, run.info.run_id, tags=tags).version)
        ) in taken:
            log.warning("%s version %s is here already, though MLflow did not know it; taking the next", task, version)
        try:
            self._take_over(task, version, bundle, checkpoint)
        except OSError:  # a version that MLflow knows and that has no files could be promoted
            with suppress(Exception):  # MLflow's database may be on the same full disk
                self._client.delete_model_version(task, version)
            raise
        self.follow(task)
        return version

    def _take_over(self, task: str, version: str, bundle: Path, checkpoint: Path) -> None:
        """Move the version's files to their places, and release it if it is the first. Raises OSError; then the files
        are where they were."""
        served = bundle_folder(self.home, task, version)
        moves = ((checkpoint, checkpoint_folder(self.home, task, version)), (bundle, served))
        try:
            for folder, place in moves:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.rename(folder, place)
            with suppress(BundleError):  # serving reports a bad bundle
                packed_model(Bundle.open(served))  # now, to save replicas the work
            try:
                read_release(self.home, task)
            except ReleaseError:
                write_release(self.home, make_release(self.home, task, version))
        except OSError:
            for folder, place in moves:
                with suppress(OSError):
                    os.rename(place, folder)
            shutil.rmtree(packed_folder(served), ignore_errors=True)
            raise

    def withdraw(self, task: str, version: str) -> None:
        """Delete a version that must never serve: its checkpoint and its bundle, also in MLflow. The run stays."""
        bundle = bundle_folder(self.home, task, version)
        for folder in (bundle, checkpoint_folder(self.home, task, version), packed_folder(bundle)):
            shutil.rmtree(folder, ignore_errors=True)
        run = self._client.get_run(self._client.get_model_version(task, version).run_id)
        self._client.delete_model_version(task, version)
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        get_artifact_repository(run.info.artifact_uri).delete_artifacts("bundle")
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
