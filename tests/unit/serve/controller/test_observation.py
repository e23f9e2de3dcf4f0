"""The gauges that the controller sets from the release, the store, the progress of a retraining, and the disk."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from export.machine import usable_cores
from models.feedback.store import Store
from models.feedback.types import LoggedPrediction, NewFeedback
from models.home import progress_file
from models.releases.rollout import Rollout
from models.retraining.plan import Result, lock_of
from models.training.progress import ProgressFile
from serve.api.repository import ApplicationsError
from serve.config import Config, LearningConfig, RolloutConfig
from serve.controller import observation
from serve.controller.loop import Loop
from serve.controller.observation import ReplicasObserver
from serve.metrics import LoopMetrics
from serve.metrics.snapshot import snapshot
from tests.helpers.runs import Runs

NOW = datetime.now(UTC)


class World:
    """A loop that neither retrains nor rolls out by itself, its store, and what it shows."""

    def __init__(self, home: Path):
        config = Config(learning=LearningConfig(automatic=False), rollout=RolloutConfig(automatic=False))
        self.home = home
        self._config = config.model_copy(update={"home": home})
        self.store, self.runs = Store.open(config.feedback.store_url(home)), Runs()
        self.moves = Rollout(home, self.store, "intent", "a test")
        self.registry = CollectorRegistry()
        metrics = LoopMetrics(self.registry, ["intent"])
        self.loop = Loop(self._config, self.store, metrics, self.runs)
        for version in ("1", "2", "3"):
            (home / "bundles" / "intent" / version).mkdir(parents=True)

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """After a step: the values of a family by the labels behind `task`."""
        self.loop.step_task("intent")
        return {labels[1:]: values[0] for labels, values in snapshot(self.registry).get(name, {}).items()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(observation, "_STORE_EVERY_S", 0.0)
    monkeypatch.setattr(observation, "_CORRECTED_EVERY_S", 0.0)
    monkeypatch.setattr("serve.controller.rollout.collect", dict)
    return World(tmp_path)


def test_moves_of_anybody_and_the_versions_that_serve(world: World) -> None:
    def moves(do: Callable[[], object]) -> set[str]:
        before = world.values("flywheel_moves")
        do()
        after = world.values("flywheel_moves")
        return {step for (step,), count in after.items() if count > before[step,]}

    assert set(world.values("flywheel_moves").values()) == {0.0}
    world.moves.promote("1", "the first")
    assert moves(lambda: None) == set(), "what served before the controller did is no move"
    assert moves(lambda: world.moves.challenge("2", "shadow", 0.0, "a try")) == {"shadow"}
    assert world.values("flywheel_release_fraction") == {("1", "champion"): 1.0, ("2", "shadow"): 0.0}
    assert moves(lambda: world.moves.challenge("2", "canary", 0.25, "a try")) == {"canary"}
    assert world.values("flywheel_release_fraction") == {("1", "champion"): 0.75, ("2", "canary"): 0.25}
    assert moves(lambda: world.moves.promote("2", "better")) == {"promote"}
    assert moves(lambda: world.moves.rollback("worse")) == {"rollback"}
    assert moves(lambda: world.moves.challenge("3", "canary", 0.25, "a try")) == {"canary"}
    assert moves(lambda: world.moves.rollback("worse")) == {"rollback"}
    assert world.values("flywheel_release_fraction") == {("1", "champion"): 1.0}
    assert time.time() - world.values("flywheel_champion_released_timestamp_seconds")[()] < 60


def test_accuracy_by_version_and_the_share_of_corrected_answers(world: World) -> None:
    def answers(version: str, count: int) -> list[str]:
        rows = [
            LoggedPrediction(f"{version}-{n}", "intent", version, ["a text"], [{"label": "refund"}], NOW)
            for n in range(count)
        ]
        world.store.predictions.log(rows)
        return [row.id for row in rows]

    def judge(ids: list[str], label: str) -> None:
        given = [NewFeedback("intent", "desk", True, NOW, label, prediction_id=id_) for id_ in ids]
        world.store.feedback.add(given, keep_days=30)

    assert world.values("flywheel_corrected_ratio") == world.values("flywheel_online_accuracy") == {}
    first, second = answers("1", 8), answers("2", 8)
    judge(first[:4], "refund")
    judge(second[:3], "refund")
    judge(second[3:4], "cancel")
    assert world.values("flywheel_online_accuracy") == {("1",): 1.0, ("2",): 0.75}
    assert world.values("flywheel_judged_predictions") == {("1",): 4.0, ("2",): 4.0}
    assert world.values("flywheel_corrected_ratio") == {(): 1 / 16}


def test_the_queue_and_its_age(world: World) -> None:
    assert world.values("flywheel_retraining_oldest_sample_age_seconds") == {(): 0.0}
    two_hours_ago = datetime.now(UTC) - timedelta(hours=2)
    old = [NewFeedback("intent", "desk", True, two_hours_ago, "refund", text=f"text {n}") for n in range(3)]
    world.store.feedback.add(old, keep_days=30)
    assert world.values("flywheel_retraining_samples") == {(): 3.0}
    assert world.values("flywheel_retraining_needed_samples") == {(): 200.0}
    assert world.values("flywheel_retraining_oldest_sample_age_seconds")[()] == pytest.approx(7200, abs=60)
    assert world.values("flywheel_corrections")["waiting",] == 3


def test_stages_of_a_retraining_of_another_process_while_it_has_the_lock(world: World) -> None:
    progress = ProgressFile(world.home, "intent")
    progress("training", 1, 10)
    an_hour_ago = time.time() - 3600
    os.utime(progress_file(world.home, "intent"), (an_hour_ago, an_hour_ago))
    assert set(world.values("flywheel_retraining_stage").values()) == {0.0}, "killed: it has no lock"
    assert world.values("flywheel_retraining_running_seconds") == {(): 0.0}
    world.store.locks.acquire(lock_of("intent"), "a terminal", 60)
    stages = world.values("flywheel_retraining_stage")
    assert [stage for (stage,), value in stages.items() if value] == ["training"]
    assert world.values("flywheel_retraining_running_seconds")[()] == pytest.approx(3600, abs=60), "it stands still"
    progress("judging", 0, 0)
    assert world.values("flywheel_retraining_stage")["judging",] == 1
    progress.end("refused", "worse", None)
    assert set(world.values("flywheel_retraining_stage").values()) == {0.0}


def test_a_retraining_that_the_controller_runs(world: World) -> None:
    assert set(world.values("flywheel_retrainings").values()) == {0.0}
    world.store.retraining.request("intent", "ops", "now")
    world.values("flywheel_retrainings")
    time.sleep(0.05)
    assert world.values("flywheel_retraining_running_seconds")[()] >= 0.05, "before its process has written a word"
    checks = (("latency", True), ("labels", False))
    world.runs.result = Result("refused", "worse", checks=checks)
    world.store.retraining.start("intent")
    world.store.retraining.finish("intent", "refused", "worse")
    assert world.values("flywheel_retrainings")["refused",] == 1
    assert world.values("flywheel_retraining_running_seconds") == {(): 0.0}
    assert world.values("flywheel_gate_checks") == {
        ("latency", "passed"): 1.0, ("latency", "failed"): 0.0, ("labels", "passed"): 0.0, ("labels", "failed"): 1.0,
    }  # fmt: skip
    *_, seconds = snapshot(world.registry)["flywheel_retraining_seconds"]["intent",]
    assert seconds >= 0.05


def test_refusals_in_a_row_and_the_last_of_each_outcome_outlive_the_controller(world: World) -> None:
    for action in ("retrain refused", "retrain released", "promote", "retrain refused", "retrain too_few", "rollback"):
        world.store.audit.append("intent", action, None, "a test", "-")
    assert world.values("flywheel_gate_refusals_in_a_row") == {(): 1.0}
    world.store.audit.append("intent", "retrain refused", None, "a test", "-")
    assert world.values("flywheel_gate_refusals_in_a_row") == {(): 2.0}
    last = world.values("flywheel_last_retraining_timestamp_seconds")
    assert last.keys() == {("refused",), ("released",), ("too_few",)}
    assert last["refused",] >= last["released",] > time.time() - 60


def test_the_disk_of_the_home(world: World) -> None:
    world.loop.step()
    found = snapshot(world.registry)
    assert 0 < found["flywheel_home_free_bytes"][()][0] <= found["flywheel_home_size_bytes"][()][0]


def test_a_disk_that_went_away_does_not_fill_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("shutil.disk_usage", gone)
    world.loop.step()
    assert snapshot(world.registry)["flywheel_home_free_bytes"] == {(): [0.0]}
    assert not [record for record in caplog.records if record.exc_info]


class States:
    """Applications whose states are given."""

    def __init__(self, states: dict[str, str] | Exception):
        self.given = states

    def states(self) -> dict[str, str]:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given

    def load(self, task: str) -> None:
        raise NotImplementedError

    unload = load


def test_a_task_that_an_operator_unloaded_should_have_no_replica() -> None:
    registry, applications = CollectorRegistry(), States({})
    config = Config()
    observer = ReplicasObserver(config, applications, LoopMetrics(registry))

    def count(states: dict[str, str] | Exception) -> float:
        applications.given = states
        observer.step()
        return snapshot(registry)["flywheel_configured_replicas"]["intent",][0]

    configured = float(config.tasks["intent"].replica_count(usable_cores()))
    assert configured > 0
    assert snapshot(registry)["flywheel_configured_replicas"]["intent",] == [configured], "before the cluster is asked"
    assert count({"intent": "unloaded"}) == 0
    assert count(ApplicationsError("the cluster does not answer")) == 0, "as it was"
    for state in ("deploying", "running", "deploy_failed", "unhealthy"):
        assert count({"intent": state}) == configured, state
    assert count({"intent": "deleting"}) == 0
