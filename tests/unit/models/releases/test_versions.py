"""A trained bundle becomes a version whatever MLflow does, and MLflow is told later what it missed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.bundle import Lineage
from models.feedback.store import Store
from models.home import bundle_folder, checkpoint_folder, training_folder
from models.releases.record import TrainingRecord, read_logged
from models.releases.release import ReleaseError, local_versions, read_release
from models.releases.rollout import Rollout
from models.releases.versions import add_version, place_version, register_version
from tests.helpers.bare_run import bundle
from tests.helpers.command import free_port
from tests.helpers.registry import mlflow_client

# MLflow reads its database with a loader that SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RECORD = TrainingRecord(
    parameters={"epochs": 3}, metrics={"accuracy": 0.5}, losses=[(i, 0.1) for i in range(1500)],
    lineage=Lineage(name="own", fingerprint="0"),
)  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mlflow")
    mlflow_client(home).search_registered_models()
    return home / "mlflow.db"


@pytest.fixture
def home(database: Path, tmp_path: Path) -> Path:
    shutil.copyfile(database, tmp_path / "mlflow.db")
    return tmp_path


def add(home: Path, release: Callable[[str], object] | None = None) -> str:
    candidate = home / "work" / "candidate"
    shutil.rmtree(candidate, ignore_errors=True)
    bundle(candidate / "bundle")
    RECORD.write(training_folder(candidate / "checkpoint"))
    return add_version(home, "intent", candidate / "bundle", candidate / "checkpoint", RECORD, release)


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def in_mlflow(home: Path) -> dict[str, Any]:
    client = mlflow_client(home)
    return {str(v.version): client.get_run(v.run_id) for v in client.search_model_versions("name='intent'")}


def aliases(home: Path) -> dict[str, str]:
    found = mlflow_client(home).get_registered_model("intent").aliases
    return {alias: str(version) for alias, version in found.items()}


def test_a_version_is_logged_whole(home: Path) -> None:
    assert add(home) == "1"
    run = in_mlflow(home)["1"]
    assert (run.info.status, run.data.params["epochs"], run.data.metrics["accuracy"]) == ("FINISHED", "3", 0.5)
    client = mlflow_client(home)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"bundle", "training.json"}
    assert aliases(home) == {"champion": "1"}
    assert len(client.get_metric_history(run.info.run_id, "loss")) == len(RECORD.losses)


def test_without_mlflow_the_version_serves_and_is_registered_later_under_its_number(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        away(patch)
        assert add(home) == "1"
        with pytest.raises(ReleaseError, match="intent version 1 is not in MLflow yet"):
            register_version(home, "intent", "1")
    assert "To add it: flywheel register intent 1" in caplog.text
    assert read_release(home, "intent").champion == "1"
    register_version(home, "intent", "1")
    register_version(home, "intent", "1")  # again: nothing is left to do
    assert set(in_mlflow(home)) == {"1"}
    assert aliases(home) == {"champion": "1"}


def test_the_next_training_registers_what_mlflow_missed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        away(patch)
        assert [add(home), add(home)] == ["1", "2"]
    assert add(home) == "3"
    assert {number: run.info.status for number, run in in_mlflow(home).items()} == dict.fromkeys("123", "FINISHED")


def test_a_first_version_is_registered_and_replaced_by_the_next_training(home: Path) -> None:
    candidate = home / "work" / "first"
    bundle(candidate / "bundle")
    RECORD.write(training_folder(candidate / "checkpoint"))
    assert place_version(home, "intent", candidate / "bundle", candidate / "checkpoint") == "1"
    assert read_release(home, "intent").champion == "1"
    assert in_mlflow(home) == {}

    def full(version: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        add(home, full)
    assert local_versions(home, "intent") == ["1"]  # the next start trains the task again
    moves = Rollout(home, Store.open(f"sqlite:///{home / 'feedback.db'}"), "intent", "a test")
    assert (second := add(home, lambda version: moves.promote(version, "it has an encoder"))) != "1"
    assert (aliases(home), read_release(home, "intent").previous) == ({"champion": second}, "1")
    assert {number: run.info.status for number, run in in_mlflow(home).items()} == dict.fromkeys(
        ("1", second), "FINISHED"
    )


def test_a_run_that_was_cut_off_is_completed_and_not_doubled(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "mlartifacts").write_text("a file where the folder of artifacts should be")
    assert add(home) == "1"
    assert "flywheel register intent 1" in caplog.text
    logged = read_logged(checkpoint_folder(home, "intent", "1"))
    assert logged is not None
    assert not logged.complete
    (home / "mlartifacts").unlink()
    register_version(home, "intent", "1")
    run = in_mlflow(home)["1"]
    assert (run.info.run_id, run.info.status) == (logged.run_id, "FINISHED")


def test_a_process_that_ends_before_it_logged_the_version_leaves_it_to_be_completed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("models.releases.versions._log", ends)
        with pytest.raises(SystemExit):
            add(home)
    assert in_mlflow(home)["1"].info.status == "RUNNING"
    register_version(home, "intent", "1")
    assert {number: run.info.status for number, run in in_mlflow(home).items()} == {"1": "FINISHED"}


def test_who_interrupts_the_registering_keeps_the_version(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("models.releases.registry.Registry.reserve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add(home)
    assert local_versions(home, "intent") == ["1"]
    assert read_release(home, "intent").champion == "1"


def test_a_number_that_is_taken_here_or_there_is_left_out(home: Path) -> None:
    bundle(bundle_folder(home, "intent", "2"))
    assert add(home) == "1"
    assert add(home) == "3"
    assert set(in_mlflow(home)) == {"1", "3"}
    with pytest.raises(ReleaseError, match="no version '2' with a record of its training here"):
        register_version(home, "intent", "2")


def test_a_version_whose_number_mlflow_gave_to_another_stays_outside(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        away(patch)
        assert add(home) == "1"
    client = mlflow_client(home)
    client.create_registered_model("intent")
    client.create_model_version("intent", "elsewhere")
    with pytest.raises(ReleaseError, match="another intent version 1 already"):
        register_version(home, "intent", "1")
    assert {v.source for v in client.search_model_versions("name='intent'")} == {"elsewhere"}
    assert [add(home), add(home)] == ["2", "3"], "asking for it again and again uses up no numbers"
    experiment = client.get_experiment_by_name("intent")
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_a_disk_that_does_not_take_the_files(home: Path) -> None:
    """No version is added, and the candidate stays whole."""
    bundles = bundle_folder(home, "intent", "1").parent
    bundles.parent.mkdir(parents=True)
    bundles.write_text("in the way")  # as good as a full disk: the folder cannot be made
    with pytest.raises(OSError, match="intent"):
        add(home)
    assert (home / "work" / "candidate" / "bundle").is_dir()
    assert (training_folder(home / "work" / "candidate" / "checkpoint")).is_dir()
    assert not in_mlflow(home)

    bundles.unlink()
    assert bundle_folder(home, "intent", add(home)).is_dir()


def test_an_empty_address_of_mlflow_is_none(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    add(home)
    assert not any(elsewhere.iterdir()), "the artifacts are in the home"
    assert (home / "mlartifacts" / "intent").is_dir()


def test_a_home_of_any_characters_holds_its_database(database: Path, tmp_path: Path) -> None:
    home = tmp_path / "what?home 100%25"
    home.mkdir()
    shutil.copyfile(database, home / "mlflow.db")
    assert bundle_folder(home, "intent", add(home)).is_dir()
    assert list(in_mlflow(home)) == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == [home.name]  # nothing lies beside the home
