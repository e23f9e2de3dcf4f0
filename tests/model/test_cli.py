"""The command line with trained models: releases and their moves, and a user's own data from a file to a champion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from export.bundle import Bundle
from models.data.dataset import load_dataset
from models.releases.release import read_release
from tests.helpers.command import ROOT, flywheel, free_port, refused
from tests.helpers.own_corpus import OWN
from tests.helpers.registry import mlflow_client
from tests.helpers.server import children
from tests.helpers.waiting import eventually


def test_an_export_of_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    found = refused(flywheel("export", "intent", "9", "out", home=tmp_path))
    assert "intent/9 is not a Flywheel checkpoint" in found


def test_promoting_an_unknown_version_lists_those_there_are(home: Path) -> None:
    before = read_release(home, "intent")
    done = flywheel("promote", "intent", "99", home=home)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: intent has no version '99'; there are: 1."
    assert read_release(home, "intent") == before


def test_a_version_is_promoted_though_the_registry_was_lost(home: Path) -> None:
    """The `home` fixture copies bundles and releases, and no mlflow.db."""
    done = flywheel("promote", "intent", "1", home=home)
    assert done.returncode == 0, done.stderr
    assert "intent: version 1 is the champion" in done.stdout


def test_a_version_is_moved_though_registry_and_database_are_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_FEEDBACK__STORE", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    shutil.copytree(home / "bundles" / "intent" / "1", home / "bundles" / "intent" / "2")
    done = flywheel("promote", "intent", "2", home=home)
    assert done.returncode == 0, done.stderr
    assert "intent: version 2 is the champion" in done.stdout
    assert "MLflow's aliases could not be set" in done.stderr
    assert "not in the audit log yet" in done.stderr
    assert flywheel("rollback", "intent", "2", home=home).returncode == 0
    assert read_release(home, "intent").champion == "1"


def test_a_challenger_is_tried_promoted_and_rolled_back(home: Path) -> None:
    shutil.copytree(home / "bundles" / "intent" / "1", home / "bundles" / "intent" / "2")
    assert flywheel("challenge", "intent", "2", "--share", "0.2", home=home).returncode == 0
    assert "challenger, canary 20%" in flywheel("releases", home=home).stdout
    done = flywheel("promote", "intent", "--reason", "better", home=home)
    assert "intent: version 2 is the champion" in done.stdout, done.stderr
    assert "neither the champion" in refused(flywheel("rollback", "intent", "9", home=home))
    done = flywheel("rollback", "intent", "2", "--reason", "worse", home=home)
    assert "intent: version 1 is the champion" in done.stdout, done.stderr
    assert "nothing to go back to" in refused(flywheel("rollback", "intent", home=home))


def test_releases_lists_versions_and_what_else_lies_there_is_no_matter(home: Path) -> None:
    (home / "bundles" / "intent" / ".DS_Store").touch()
    done = flywheel("releases", home=home)
    assert done.returncode == 0, done.stderr
    for task in ("intent", "sentiment", "recommendation"):
        assert task in done.stdout
    assert done.stdout.count("champion") == 3


@pytest.fixture(scope="module")
def trained(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a user has trained the intent task twice on own data: a CSV, then a JSONL with LoRA."""
    home = tmp_path_factory.mktemp("own") / "home"
    shutil.copytree(parent, home)
    file = home / "own.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in OWN))
    arguments = ("--data", str(file), "--method", "lora", "--epochs", "2")
    done = flywheel("train", "intent", *arguments, home=home, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (home / "version2.txt").write_text(done.stdout)
    return home


def test_the_first_version_serves_and_the_next_waits_for_its_promotion(trained: Path) -> None:
    assert read_release(trained, "intent").champion == "1"
    assert "intent version 1: accuracy " in (trained / "version1.txt").read_text()
    second = (trained / "version2.txt").read_text()
    assert "version 1 keeps serving; to serve this one: flywheel promote intent 2" in second
    for version, champion in (("2", "2"), ("1", "1")):
        done = flywheel("promote", "intent", version, home=trained)
        assert done.returncode == 0, done.stderr
        assert read_release(trained, "intent").champion == champion
        assert "Traceback" not in done.stderr


def test_both_versions_are_whole_bundles_of_the_user_s_labels(trained: Path) -> None:
    dataset = load_dataset("intent", trained / "own.csv")
    for version in ("1", "2"):
        manifest = Bundle.open(trained / "bundles" / "intent" / version).manifest
        assert manifest.labels == ("astronomy", "gardening")
        assert manifest.data == dataset.lineage()
        assert (trained / "checkpoints" / "intent" / version).is_dir()
    assert not any((trained / "work").iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy
def test_mlflow_has_the_runs_and_the_registered_versions(trained: Path) -> None:
    client = mlflow_client(trained)
    dataset = load_dataset("intent", trained / "own.csv")
    for version, method, epochs in (("1", "full", "4"), ("2", "lora", "2")):
        registered = client.get_model_version("intent", version)
        assert registered.tags["data.fingerprint"] == dataset.fingerprint
        assert registered.tags["data.name"] == "own"
        run = client.get_run(registered.run_id)
        assert run.info.status == "FINISHED"
        assert (run.data.params["method"], run.data.params["epochs"]) == (method, epochs)
        assert run.data.params["data.fingerprint"] == dataset.fingerprint
        assert run.data.params["precision"] == "int8"
        assert {"accuracy", "macro_f1", "min_recall", "calibration_error"} <= set(run.data.metrics)
        assert "parity.max_batch_difference" in run.data.metrics
        artifacts = {file.path for file in client.list_artifacts(registered.run_id)}
        assert artifacts >= {"confusion_matrix.png", "bundle"}
        assert "bundle/model.onnx" in {file.path for file in client.list_artifacts(registered.run_id, "bundle")}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy
def test_the_aliases_of_mlflow_follow_the_release(trained: Path) -> None:
    def aliases() -> dict[str, str]:
        found = mlflow_client(trained).get_registered_model("intent").aliases
        return {alias: str(version) for alias, version in found.items()}

    champion = read_release(trained, "intent").champion
    other = "2" if champion == "1" else "1"
    assert aliases() == {"champion": champion}
    assert flywheel("challenge", "intent", other, "--share", "0.1", home=trained).returncode == 0
    assert aliases() == {"champion": champion, "challenger": other}
    assert flywheel("rollback", "intent", home=trained).returncode == 0
    assert aliases() == {"champion": champion}


def test_a_signal_during_a_first_training_ends_it_and_all_its_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "FLYWHEEL_HOME": str(tmp_path / "home")}
    with subprocess.Popen(
        [Path(sys.executable).parent / "flywheel", "up", "--port", str(free_port())],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            assert "No model yet" in process.stdout.readline()
            eventually(lambda: len(children(process.pid, "spawn_main")) > 0, 60)  # the workers that train
            family = children(process.pid, "")
            process.terminate()
            assert process.wait(30) == 0  # a stop that was asked for is no failure
        finally:
            process.kill()
    eventually(lambda: not [pid for pid in family if Path(f"/proc/{pid}").exists()], 10)
