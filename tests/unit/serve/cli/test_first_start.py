"""A first version: trained in seconds without an encoder, from any corpus, and served like any other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.bundle import Bundle
from export.heads import softmax
from export.model import Model
from models.home import bundle_folder, training_progress_file
from models.releases.release import awaits_encoder, read_release
from models.tasks.base import get_task
from models.tasks.ranker import Ranker
from models.training.candidate import TrainingJob
from models.training.first_version import NOTE, build_first_version
from models.training.pipeline import register_candidate
from tests.helpers.command import ROOT
from tests.helpers.own_corpus import own_data

MISTAKES = [
    (f"{start} my {thing}", label)
    for start in ("look at", "where is", "this is")
    for thing, label in (("comet", "gardening"), ("hedge", "astronomy"), ("lawn", "astronomy"))
]


def first_version(home: Path, task: str, data: Path) -> Bundle:
    candidate = build_first_version(TrainingJob(task, data), home, lambda *_: None)
    version = register_candidate(candidate, home, mlflow=False)
    assert read_release(home, task).champion == version == "1"
    assert not list((home / "work").iterdir())
    return Bundle.open(bundle_folder(home, task, version))


def test_a_classifier_answers_and_says_what_it_is(tmp_path: Path) -> None:
    data = own_data(tmp_path)
    with data.open("a") as file:  # as people label; of labels that are never wrong, a reader is sure
        file.writelines(f"{text},{label}\n" for text, label in MISTAKES)
    bundle = first_version(tmp_path, "intent", data)
    assert not bundle.manifest.has_encoder
    assert bundle.manifest.notes == (NOTE,)
    assert bundle.manifest.metrics["accuracy"] > 0.7
    model = Model.open(bundle)
    texts = ["photos of the comet please", "compost"]
    rows = [encoded.ids for encoded in model.encoder.encode(texts)]
    outputs = model.run(rows)
    assert [bundle.manifest.labels[i] for i in outputs.argmax(1)] == ["astronomy", "gardening"]
    assert np.array_equal(outputs, [model.early(ids) for ids in rows])  # as an early answer, for it has nothing to ask
    assert 0.5 < softmax(outputs).max(1).min() < 0.999
    task = get_task("intent")(bundle)
    predictions = task.decode(task.Request(texts=texts), task.activate(outputs), [False] * 2)
    assert [prediction["handoff"] for prediction in predictions] == [False, False]
    assert awaits_encoder(tmp_path, "intent")


def test_a_ranker_compares_words(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), ["user_id,item_id,event,time,text"]
    kinds = ("tent camping outdoor", "velvet cushion sofa")
    for user in range(40):
        for time in range(12):
            item = int(rng.integers(20))
            event = "click" if item % 2 == user % 2 else "view"
            rows.append(f"u{user},i{item},{event},{time},{kinds[item % 2]} number{item}")
    (tmp_path / "shop.csv").write_text("\n".join(rows))
    bundle = first_version(tmp_path, "recommendation", tmp_path / "shop.csv")
    assert bundle.manifest.metrics["auc"] > 0.8 > bundle.manifest.metrics["popularity_auc"]
    model = Model.open(bundle)
    assert not model.answers_early
    vectors = model.predict(["outdoor tent", "sofa cushion", "camping", "zzz"])
    ranker = Ranker.of_bundle(bundle)
    items, histories = vectors[:, : ranker.dimensions], vectors[:, ranker.dimensions : -1]
    assert vectors.shape == (4, ranker.width)
    assert histories[0] @ items[2] > histories[0] @ items[1]  # who chose a tent is likelier to choose camping
    assert np.isfinite(vectors).all()


def test_a_training_that_fails_beside_the_server_leaves_the_first_version_and_says_what_to_do(tmp_path: Path) -> None:
    home, stub = tmp_path / "home", tmp_path / "stub" / "torch.py"
    first_version(home, "intent", own_data(tmp_path))
    stub.parent.mkdir()
    stub.write_text("raise ImportError('no torch')")
    (tmp_path / "flywheel.yaml").write_text("tasks: {intent: {}}")
    environment = {"FLYWHEEL_HOME": str(home), "FLYWHEEL_CONFIG": str(tmp_path / "flywheel.yaml")}
    done = subprocess.run(
        [sys.executable, "-m", "serve.cli.main", "prepare", "--beside"],
        cwd=ROOT, env={"PYTHONPATH": str(stub.parent), "HOME": str(tmp_path), **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = json.loads(training_progress_file(home, "intent").read_bytes())
    assert told["state"] == "failed"
    for part in ("needs the train extra", "Version 1 keeps serving", "flywheel train intent"):
        assert part in told["sentence"]
        assert part in done.stderr
    assert awaits_encoder(home, "intent")


KILLED = """
import os, signal, time
from pathlib import Path
from models.training.progress import read_training
from serve.cli.first_start import training_beside
from serve.cli.settings import load_config
from serve.cli.stopping import StopSignals
signals, config = StopSignals(), load_config()
with training_beside(config, None, signals):
    assert read_training(config.home, "intent")["state"] == "running"
    (child,) = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    while read_training(config.home, "intent")["state"] == "running":
        time.sleep(0.1)
print(read_training(config.home, "intent")["sentence"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_training_that_is_killed_beside_the_server_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first_version(home, "intent", own_data(tmp_path))
    (tmp_path / "flywheel.yaml").write_text("tasks: {intent: {}}")
    environment = {"FLYWHEEL_HOME": str(home), "FLYWHEEL_CONFIG": str(tmp_path / "flywheel.yaml")}
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=ROOT, env={"HOME": str(tmp_path), **environment},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "its process ended with -9, perhaps for want of memory. Version 1 keeps serving." in done.stdout
