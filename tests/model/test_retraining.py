"""The loop without a server: corrections in, a version or a refusal out, and nothing lost in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest

from export.bundle import Bundle
from export.session import OnnxSession
from models.curation.types import Rules
from models.feedback.store import Store
from models.feedback.types import NewFeedback
from models.releases.release import read_release
from models.retraining.plan import Plan, Result
from models.retraining.run import retrain
from models.tasks.thresholds import Thresholds
from models.training.pipeline import remove_interrupted_runs
from tests.helpers.command import ROOT
from tests.helpers.own_corpus import CORRECTIONS

# MLflow reads its database with a loader that SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NEW = "cooking"
# A text or two of a small holdout is not what these tests are about.
LENIENT = Thresholds(margin=90.0, margin_with_gain=90.0, max_loss=40.0, max_recall_loss=60.0,
                     max_calibration_rise=60.0, significance=0.001, max_latency_ratio=10.0)  # fmt: skip
PLANTED = "my zabaglione looks wonderful this year"
UNSEEN = ("how long does the stew need?", "I burned the soup")


@pytest.fixture
def learner(parent: Path, tmp_path: Path) -> Iterator[tuple[Path, Store]]:
    """A home with what a retraining continues from, and 31 corrections that bring a new label."""
    home = tmp_path / "home"
    shutil.copytree(parent, home)
    store = Store.open(f"sqlite:///{home / 'feedback.db'}")
    start = datetime.now(UTC) - timedelta(hours=1)
    texts = [PLANTED, *(correction.text for correction in CORRECTIONS)]
    store.feedback.add(
        [
            NewFeedback("intent", "desk", True, start + timedelta(seconds=n), NEW, text=text, user=f"u{n}")
            for n, text in enumerate(texts)
        ],
        keep_days=30,
    )
    yield home, store
    store.close()


def plan(thresholds: Thresholds = LENIENT, **changes: object) -> Plan:
    recipe = dict(changes.pop("recipe", {}))  # type: ignore[call-overload]
    return Plan("intent", Rules(), thresholds, True, recipe=tuple(recipe.items()), **changes)  # type: ignore[arg-type]


def run(home: Path, store: Store, **changes: Any) -> Result:
    return retrain(plan(**changes), home, store, "a test", lambda *_: None)


def labels(home: Path, version: str, texts: tuple[str, ...]) -> list[str]:
    bundle = Bundle.open(home / "bundles" / "intent" / version)
    known = bundle.manifest.labels
    return [known[i] for i in OnnxSession(bundle, providers="cpu").predict(list(texts)).argmax(1)]


def artifacts(home: Path, run_id: str) -> set[str]:
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    return {file.path for folder in ("verdict", "curation") for file in client.list_artifacts(run_id, folder)}


def test_a_new_label_is_learned_judged_and_tried(learner: tuple[Path, Store]) -> None:
    home, store = learner
    result = run(home, store)
    assert result.outcome == "released", result.sentence
    release = read_release(home, "intent")
    assert (release.champion, release.challenger, release.mode) == ("1", result.version, "canary")
    assert labels(home, str(result.version), UNSEEN) == [NEW, NEW]
    counts = store.feedback.counts("intent")
    assert counts["used"] > 0
    assert counts["leased"] == 0
    assert [entry.action for entry in reversed(store.audit.entries("intent"))] == ["canary", "retrain released"]
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    version = mlflow.MlflowClient().get_model_version_by_alias("intent", "challenger")
    assert str(version.version) == result.version
    assert {"verdict/verdict.html", "curation/curation.md"} <= artifacts(home, version.run_id)
    # Nobody sees the text of a correction: not as a known question, and not in what MLflow keeps.
    for folder in (home / "mlartifacts", home / "bundles" / "intent" / str(result.version)):
        files = [file for file in folder.rglob("*.*") if file.is_file() and file.suffix != ".onnx"]
        assert files
        assert [file for file in files if b"zabaglione" in file.read_bytes()] == []
    erased = store.privacy.erase("u0")
    assert erased.feedback
    assert erased.versions == {"intent": [result.version]}
    assert not (home / "work").exists() or not list((home / "work").iterdir())


def test_a_candidate_that_fails_its_gate_is_refused_and_changes_nothing(learner: tuple[Path, Store]) -> None:
    home, store = learner
    before = read_release(home, "intent")
    # No model is a hundred times as fast as its champion. One broken by a learning rate of 0.5 fails either here or, on
    # some processors, at its export.
    result = run(
        home,
        store,
        thresholds=LENIENT.model_copy(update={"max_latency_ratio": 0.01}),
        recipe={"epochs": 1},
        max_attempts=1,
    )
    assert result.outcome == "refused", result.sentence
    assert result.version is None
    assert read_release(home, "intent") == before
    assert [path.name for path in (home / "bundles" / "intent").glob("[!.]*")] == ["1"]
    assert store.feedback.counts("intent")["dead"] > 0  # one attempt was all they had
    assert "refused" in store.queue.dead_letters("intent")[0].reason
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    found = mlflow.MlflowClient().search_runs(
        [mlflow.get_experiment_by_name("intent").experiment_id], "tags.verdict = 'refused'"
    )
    assert "verdict/verdict.html" in artifacts(home, found[0].info.run_id)


def test_a_retraining_that_is_killed_leaves_the_corrections_to_the_next(learner: tuple[Path, Store]) -> None:
    home, store = learner
    program = (
        "import sys; from pathlib import Path\n"
        "from models.retraining.run import Plan, retrain; from models.feedback.store import Store\n"
        "home = Path(sys.argv[1])\n"
        "report = lambda stage, done, total: print(stage, flush=True)\n"
        "plan = Plan('intent', new_labels=True)\n"
        "retrain(plan, home, Store.open(f\"sqlite:///{home / 'feedback.db'}\"), 'a test', report)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(home)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "training":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    leased = store.feedback.counts("intent")["leased"]
    assert leased >= 20
    assert run(home, store).outcome == "busy"  # its lock has not expired yet
    later = Store(f"sqlite:///{home / 'feedback.db'}", clock=lambda: datetime.now(UTC) + timedelta(minutes=5))
    assert (later.feedback.counts("intent")["waiting"], later.feedback.counts("intent")["leased"]) == (
        leased,
        0,
    )  # the loop begins anew
    assert len(list((home / "work").iterdir())) == 1
    remove_interrupted_runs(home, "intent")
    assert list((home / "work").iterdir()) == []
    assert later.locks.acquire("retrain-intent", "another", 1)
    assert len(later.queue.lease("intent", "another", 100, 1)) == leased
    assert read_release(home, "intent").champion == "1"


def test_too_few_corrections_are_left_in_the_queue(learner: tuple[Path, Store]) -> None:
    home, store = learner
    result = run(home, store, min_samples=1000)
    assert result.outcome == "too_few"
    counts = store.feedback.counts("intent")
    assert counts["waiting"] >= 20
    assert counts["waiting"] + counts["dropped"] == 31  # a few are the same but for a word
    assert counts["dead"] == counts["leased"] == counts["quarantined"] == 0
