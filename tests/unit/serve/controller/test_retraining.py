"""When the controller starts a retraining, and when it does not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from export.bundle import FORMAT, MANIFEST, Lineage, Manifest
from models.evaluation.drift import Drift
from models.feedback.store import Store
from models.feedback.types import NewFeedback
from models.home import bundle_folder
from models.releases.rollout import Rollout
from models.retraining.plan import Plan, Result
from serve.config import Config, LearningConfig, RolloutConfig, TaskConfig
from serve.controller.loop import Loop
from serve.metrics import LoopMetrics
from serve.metrics.snapshot import snapshot
from tests.helpers.runs import Runs

AFTER = 10


Made = Callable[..., tuple[Loop, Store, Runs]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    def make(registry: CollectorRegistry | None = None, **learning: Any) -> tuple[Loop, Store, Runs]:
        config = Config(
            learning=LearningConfig(**{"min_new_samples": AFTER, **learning}),
            rollout=RolloutConfig(automatic=False),
            tasks={"intent": TaskConfig(new_labels=True), "recommendation": TaskConfig()},
        ).model_copy(update={"home": tmp_path})  # the environment may name another
        store, runs = Store.open(config.feedback.store_url(tmp_path)), Runs()
        return Loop(config, store, LoopMetrics(registry or CollectorRegistry()), runs), store, runs

    return make


def correct(store: Store, first: int, count: int, age: timedelta = timedelta()) -> None:
    at = datetime.now(UTC) - age
    items = [
        NewFeedback("intent", "desk", True, at, "track_order", text=f"text {n}") for n in range(first, first + count)
    ]
    store.feedback.add(items, keep_days=30)


def end(store: Store, runs: Runs, result: Result) -> None:
    """End the run as `retrain` does, which takes the requests and finishes them."""
    store.retraining.start("intent")
    store.retraining.finish("intent", result.outcome, result.sentence, result.version)
    runs.result = result


def test_it_waits_for_enough_corrections_and_then_begins_once(made: Made) -> None:
    loop, store, runs = made(method="lora")
    correct(store, 0, AFTER - 1)
    loop.step_task("intent")
    assert runs.begun == []
    correct(store, AFTER, 1)
    loop.step_task("intent")
    loop.step_task("intent")  # it is under way
    assert len(runs.begun) == 1
    assert runs.begun[0].new_labels
    assert dict(runs.begun[0].recipe)["method"] == "lora"
    assert store.audit.entries("intent")[0].reason == f"{AFTER} corrections wait"


def test_corrections_and_requests_wait_while_a_first_version_serves(made: Made, tmp_path: Path) -> None:
    loop, store, runs = made()
    for version, has_encoder in (("1", False), ("2", True)):
        fields = {"task": "intent", "kind": "classifier", "labels": ["a"], "max_length": 16, "precision": "fp32"}
        other = {
            "format": FORMAT,
            "base_model": "-",
            "data": Lineage(),
            "created": "-",
            "files": {},
            "has_encoder": has_encoder,
        }
        bundle = bundle_folder(tmp_path, "intent", version)
        bundle.mkdir(parents=True)
        (bundle / MANIFEST).write_text(Manifest.model_validate({**fields, **other}).model_dump_json())
    moves = Rollout(tmp_path, store, "intent", "a test")
    moves.promote("1", "the first")
    correct(store, 0, AFTER)
    store.retraining.request("intent", "somebody", "now")
    loop.step_task("intent")
    assert runs.begun == []
    assert store.retraining.latest("intent", 1)[0].state == "requested"
    moves.promote("2", "it has an encoder")
    loop.step_task("intent")
    assert len(runs.begun) == 1


def test_what_a_run_left_in_the_queue_does_not_start_another(made: Made) -> None:
    loop, store, runs = made()
    correct(store, 0, AFTER)
    loop.step_task("intent")
    runs.result = Result("too_few", "only a few may be learned from", requeued=AFTER)
    for _ in range(3):
        loop.step_task("intent")
    assert len(runs.begun) == 1
    correct(store, 100, AFTER)
    loop.step_task("intent")
    assert len(runs.begun) == 2


def test_what_a_run_left_is_forgotten_when_it_is_gone(made: Made) -> None:
    loop, store, runs = made()
    correct(store, 0, AFTER)
    loop.step_task("intent")
    runs.result = Result("too_few", "only a few may be learned from", requeued=AFTER)
    loop.step_task("intent")
    learned = store.queue.lease("intent", "a terminal", AFTER, 60)
    store.queue.settle("a terminal", {sample.id: ("used", None) for sample in learned})
    loop.step_task("intent")
    correct(store, 100, AFTER)
    loop.step_task("intent")
    assert len(runs.begun) == 2


def test_what_arrived_while_it_ran_starts_the_next(made: Made) -> None:
    loop, store, runs = made()
    correct(store, 0, AFTER)
    loop.step_task("intent")
    correct(store, 100, AFTER)
    runs.result = Result("refused", "worse", requeued=AFTER)
    loop.step_task("intent")
    assert len(runs.begun) == 2


def test_after_a_failure_it_does_not_begin_again_at_once(made: Made) -> None:
    loop, store, runs = made()
    correct(store, 0, AFTER)
    loop.step_task("intent")
    runs.result = Result("failed", "its process ended")
    loop.step_task("intent")
    correct(store, 100, AFTER)
    loop.step_task("intent")
    assert len(runs.begun) == 1


def test_what_a_killed_run_held_starts_the_next_when_its_lease_has_expired(made: Made) -> None:
    loop, store, runs = made(every_hours=1)
    correct(store, 0, AFTER, timedelta(hours=2))
    store.queue.lease("intent", "killed", AFTER, 60)
    loop.step_task("intent")
    assert runs.begun == []
    store.database.clock = lambda: datetime.now(UTC) + timedelta(minutes=2)
    loop.step_task("intent")
    assert len(runs.begun) == 1
    assert store.audit.entries("intent")[0].reason == f"{AFTER} corrections wait"


def test_a_run_whose_process_was_killed_runs_no_more(made: Made) -> None:
    loop, store, runs = made(automatic=False)
    correct(store, 0, AFTER)
    store.retraining.request("intent", "ops", "before the sale")
    loop.step_task("intent")
    [owner] = runs.owners
    store.locks.acquire("retrain-intent", owner, 120)
    store.retraining.start("intent")
    store.queue.lease("intent", owner, AFTER, 120)
    runs.result = Result("failed", "its process ended: WorkerCrashedError")
    loop.step_task("intent")
    assert not store.locks.is_held("retrain-intent")
    assert [request.state for request in store.retraining.latest("intent")] == ["requested"]
    assert store.feedback.counts("intent")["waiting"] == AFTER


def test_a_run_that_failed_takes_nothing_from_the_one_that_came_after_it(made: Made) -> None:
    loop, store, runs = made(automatic=False)
    store.retraining.request("intent", "ops", "before the sale")
    loop.step_task("intent")
    store.locks.acquire("retrain-intent", "a terminal", 120)
    runs.result = Result("failed", "ValueError")
    loop.step_task("intent")
    assert store.locks.is_held("retrain-intent")


def test_a_run_that_found_another_at_work_is_not_begun_again_at_once(made: Made) -> None:
    loop, store, runs = made()
    correct(store, 0, AFTER)
    loop.step_task("intent")
    runs.result = Result("busy", "it is being retrained already")
    loop.step_task("intent")
    loop.step_task("intent")
    assert len(runs.begun) == 1


def test_a_ranker_learns_like_the_others(made: Made) -> None:
    loop, store, runs = made(automatic=False)
    store.retraining.request("recommendation", "ops", "a new season")
    loop.step_task("recommendation")
    assert [plan.task for plan in runs.begun] == ["recommendation"]


def test_it_begins_when_asked_however_few_there_are(made: Made) -> None:
    loop, store, runs = made(automatic=False)
    correct(store, 0, AFTER * 2)
    loop.step_task("intent")
    assert runs.begun == []
    store.retraining.request("intent", "ops", "before the sale")
    loop.step_task("intent")
    assert len(runs.begun) == 1
    assert store.audit.entries("intent")[0].reason == "requested by ops: before the sale"
    end(store, runs, Result("refused", "worse"))
    loop.step_task("intent")
    loop.step_task("intent")  # the request is done
    assert len(runs.begun) == 1
    assert [(r.state, r.outcome) for r in store.retraining.latest("intent")] == [("done", "refused")]


def test_it_begins_by_schedule(made: Made) -> None:
    loop, store, runs = made(every_hours=24)
    correct(store, 0, 1, timedelta(hours=23))
    loop.step_task("intent")
    assert runs.begun == []
    correct(store, 5, 1, timedelta(hours=25))
    loop.step_task("intent")
    assert len(runs.begun) == 1


def drifting(made: Made, found: Any) -> list[Plan]:
    """What begins when the test for drift has ended with `found`."""
    loop, store, runs = made(on_drift=True, min_new_samples=1000, drift_every_s=1e-6)
    runs.drift = "the test"
    correct(store, 0, 60)
    loop.step_task("intent")
    runs.result = found
    loop.step_task("intent")
    return runs.begun


def drift(distance: float) -> dict[str, Drift]:
    return {"lengths": Drift(distance, 0.001, distance >= 0.12, "texts are twice as long")}


def test_it_begins_when_the_inputs_have_drifted(made: Made) -> None:
    assert len(drifting(made, drift(0.5))) == 1


@pytest.mark.parametrize("found", [drift(0.1), {}, Result("failed", "its process ended: WorkerCrashedError")])
def test_it_does_not_begin_without_drift_nor_when_the_test_died(made: Made, found: Any) -> None:
    assert drifting(made, found) == []


def test_drift_is_measured_where_it_starts_nothing(made: Made) -> None:
    registry = CollectorRegistry()
    loop, _, runs = made(registry, on_drift=False, automatic=False, drift_every_s=1e-6)
    runs.drift = "the test"
    loop.step_task("intent")
    runs.result = drift(0.5)
    loop.step_task("intent")
    assert runs.begun == []
    found = snapshot(registry)
    assert found["flywheel_drift_statistic"] == {("intent", "lengths"): [0.5]}
    assert found["flywheel_drift_bound"] == {("intent", "lengths"): [0.12]}


def test_a_version_that_never_got_a_release_moves_nothing(made: Made, tmp_path: Path) -> None:
    loop, store, runs = made()
    loop.step_task("intent")
    assert runs.begun == []
    assert Rollout(tmp_path, store, "intent", "a test").store.audit.entries("intent") == []


def test_a_request_waits_while_another_run_is_at_work(made: Made) -> None:
    loop, store, runs = made(automatic=False)
    store.locks.acquire("retrain-intent", "a terminal", 60)
    store.retraining.request("intent", "ops", "before the sale")
    loop.step_task("intent")
    assert runs.begun == []
    store.locks.release("retrain-intent", "a terminal")
    loop.step_task("intent")
    assert len(runs.begun) == 1
    runs.result = Result("busy", "it is being retrained already")  # a terminal was faster
    loop.step_task("intent")
    assert len(runs.begun) == 2
    end(store, runs, Result("released", "better", "2"))
    loop.step_task("intent")
    assert [(r.state, r.outcome, r.version) for r in store.retraining.latest("intent")] == [("done", "released", "2")]
    assert len(runs.begun) == 2


def test_a_request_whose_run_died_before_it_took_it_is_not_tried_every_two_seconds(made: Made) -> None:
    loop, store, runs = made(automatic=False)
    store.retraining.request("intent", "ops", "before the sale")
    loop.step_task("intent")
    runs.result = Result("failed", "its process ended: WorkerCrashedError")
    for _ in range(3):
        loop.step_task("intent")
    assert len(runs.begun) == 1
    store.retraining.request("intent", "ops", "there is memory now")
    loop.step_task("intent")
    assert len(runs.begun) == 2
    assert store.audit.entries("intent")[0].reason == "requested by ops: there is memory now"


def test_a_request_whose_controller_was_killed_is_served_by_the_next(made: Made) -> None:
    loop, store, _ = made(automatic=False)
    store.retraining.request("intent", "ops", "before the sale")
    loop.step_task("intent")
    begun = []
    for _ in range(2):
        store.locks.acquire("retrain-intent", "a run", 60)
        store.retraining.start("intent")
        successor, _, theirs = made(automatic=False)
        successor.step_task("intent")
        assert theirs.begun == []  # the run is at work
        store.locks.release("retrain-intent", "a run")  # as its expiry does after a kill
        successor.step_task("intent")
        begun.append(len(theirs.begun))
    assert begun == [1, 0]  # a request that kills its run is not tried for ever
    assert [r.state for r in store.retraining.latest("intent")] == ["failed"]
