"""A restored home goes on in its own MLflow: the next version is the next number, and its files are in the new home."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export.bundle import Lineage
from models.backup.backup import back_up
from models.backup.restore import restore
from models.home import feedback_database, mlflow_artifacts, sqlite_url, training_folder
from models.releases.record import TrainingRecord
from models.releases.versions import add_version
from tests.helpers.bare_run import bundle
from tests.helpers.registry import mlflow_client

# MLflow reads its database with a loader that SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RECORD = TrainingRecord(parameters={}, metrics={}, losses=[], lineage=Lineage(name="own", fingerprint="0"))


def add(home: Path) -> str:
    candidate = home / "work" / "candidate"
    bundle(candidate / "bundle")
    RECORD.write(training_folder(candidate / "checkpoint"))
    return add_version(home, "intent", candidate / "bundle", candidate / "checkpoint", RECORD)


def test_versions_go_on_in_the_restored_home(tmp_path: Path) -> None:
    home, moved, copy = tmp_path / "home", tmp_path / "moved", tmp_path / "copy"
    home.mkdir()
    assert [add(home), add(home)] == ["1", "2"]
    shutil.move(home, moved)  # by hand: MLflow still names the old place
    archive = back_up(
        moved, sqlite_url(feedback_database(moved)), tmp_path / "a.tar", lambda stage, done, total: None
    ).archive
    copy.mkdir()
    restore(archive, copy, lambda done, total: None)
    shutil.rmtree(moved)
    client = mlflow_client(copy)
    artifacts = mlflow_artifacts(copy).resolve().as_uri()
    assert client.get_model_version("intent", "1").source.startswith(f"{artifacts}/intent/")
    run = client.get_model_version("intent", "1").run_id
    assert [file.path for file in client.list_artifacts(run, "bundle") if file.path.endswith("manifest.json")]
    assert add(copy) == "3"
    assert client.get_model_version("intent", "3").source.startswith(f"{artifacts}/intent/")
    assert not home.exists()
