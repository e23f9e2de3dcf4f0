"""Versions that the loop moves by itself, on what it counts of their answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from models.feedback.store import Store
from models.releases.release import Release, read_release, write_aliased, write_release
from models.releases.rollout import Rollout
from serve.config import Config, FeedbackConfig, LearningConfig, RolloutConfig
from serve.controller.loop import Loop
from serve.metrics import LoopMetrics
from serve.metrics.snapshot import Snapshot, snapshot
from tests.helpers.runs import Runs


class World:
    """A loop that rolls out, an operator beside it, and the collectors of a server's answers."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, store: str | None = None, **rollout: bool):
        self.home = home
        rules = RolloutConfig(watch_s=60, min_duration_s=0, **rollout)
        self._config = Config(
            learning=LearningConfig(automatic=False), rollout=rules, feedback=FeedbackConfig(store=store)
        ).model_copy(update={"home": home})
        self.store = Store(self._config.feedback.store_url(home), patience_s=0.2)
        self.operator = Rollout(home, self.store, "intent", "ops")
        registry = CollectorRegistry()
        self._requests = Counter("flywheel_requests", "", ["task", "version", "endpoint", "code"], registry=registry)
        self.shadow = Counter("flywheel_shadow_texts", "", ["task", "version", "result"], registry=registry)
        self.loaded = Gauge("flywheel_loaded_replicas", "", ["task", "version"], registry=registry)
        self.while_it_looks: Callable[[], object] = lambda: None
        """what somebody else does between the loop's reading of the release and its move"""

        def collect() -> Snapshot:  # of this process, not of a server's
            self.while_it_looks()
            return snapshot(registry)

        monkeypatch.setattr("serve.controller.rollout.collect", collect)
        self.runs = runs = Runs()
        self.shown = CollectorRegistry()
        metrics = LoopMetrics(self.shown)
        self.loop = Loop(self._config, self.store, metrics, runs)
        for version in ("1", "2", "3"):
            (home / "bundles" / "intent" / version).mkdir(parents=True)
        for version in ("1", "2"):
            self.operator.promote(version, "a test")

    @property
    def release(self) -> Release:
        return read_release(self.home, "intent")

    def answer(self, version: str, fine: int, fails: int = 0) -> None:
        self._requests.labels("intent", version, "predict", "500").inc(fails)
        self._requests.labels("intent", version, "predict", "200").inc(fine)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    Store.open(f"sqlite:///{tmp_path / 'feedback.db'}").close()
    return World(tmp_path, monkeypatch)


@pytest.fixture
def lonely_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Its database is away."""
    return World(tmp_path, monkeypatch, store="postgresql://nobody@127.0.0.1:1/none")


def test_a_promotion_is_taken_back_when_its_answers_fail_and_for_a_while_only(world: World) -> None:
    def turn(fails: int) -> str:
        world.loop.step_task("intent")
        world.answer("2", 400, fails)
        world.loop.step_task("intent")
        return world.release.champion

    assert turn(fails=0) == "2"
    now = world.release
    assert now.promoted is not None
    write_release(world.home, now.model_copy(update={"promoted": now.promoted - timedelta(seconds=61)}))
    world.operator.challenge("1", "shadow", 0.0, "a test")
    world.operator.rollback("a test")  # an end of a trial is no promotion
    assert turn(fails=100) == "2"
    write_release(world.home, now)
    assert turn(fails=100) == "1"
    last = world.store.audit.entries("intent")[0]
    assert (last.action, last.version, last.actor) == ("rollback", "1", "the controller")
    assert last.reason == "20.0% of 500 answers failed, and 0.0% before it"
    assert turn(fails=100) == "1"


@pytest.mark.parametrize("fails", [0, 300])
def test_what_an_operator_withdrew_meanwhile_is_neither_promoted_nor_is_the_champion_demoted(
    world: World, fails: int
) -> None:
    world.operator.challenge("3", "canary", 0.1, "a test")
    world.loop.step_task("intent")
    world.answer("3", 300, fails)
    world.answer("2", 300)
    world.while_it_looks = lambda: world.release.challenger and world.operator.rollback("complaints")
    world.loop.step_task("intent")
    assert (world.release.champion, world.release.challenger) == ("2", None)
    world.loop.step_task("intent")
    assert (world.release.champion, world.release.challenger) == ("2", None)
    assert [entry.actor for entry in world.store.audit.entries("intent")] == ["ops"] * 4


def test_the_loop_does_not_return_to_a_version_that_an_operator_has_just_replaced(world: World) -> None:
    world.operator.promote("3", "a test")
    world.loop.step_task("intent")
    world.answer("3", 100, 300)
    world.while_it_looks = lambda: world.release.champion == "3" and world.operator.promote("2", "3 fails")
    world.loop.step_task("intent")
    assert world.release.champion == "2"


@pytest.mark.parametrize(("replicas", "challenger"), [((2, 0), None), ((2, 1), "3"), ((0, 0), "3")])
def test_a_challenger_that_no_replica_could_load_is_taken_out(
    world: World, replicas: tuple[int, int], challenger: str | None
) -> None:
    """It never answers, and so would be on trial for ever. Where not even the champion is known, nothing is."""
    world.operator.challenge("3", "canary", 0.1, "a test")
    for version, count in zip(("2", "3"), replicas, strict=True):
        world.loaded.labels("intent", version).set(count)
    for _ in range(2):
        world.loop.step_task("intent")
    assert world.release.challenger == challenger
    if challenger is None:
        assert "no replica could load it" in world.store.audit.entries("intent")[0].reason


@pytest.mark.parametrize("mode", ["canary", "shadow"])
def test_what_is_compared_is_shown_though_nothing_is_moved(
    mode: Literal["canary", "shadow"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch, automatic=False)

    def shown(name: str) -> dict[str, float]:
        world.loop.step_task("intent")
        return {role: value for (_, role), [value] in snapshot(world.shown)[f"flywheel_canary_{name}"].items()}

    assert shown("requests") == {}
    world.operator.challenge("3", mode, 0.1, "a test")
    world.loop.step_task("intent")
    world.answer("2", 400)
    if mode == "canary":
        world.answer("3", 100, 300)
    else:
        world.shadow.labels("intent", "3", "differ").inc(100)
        world.shadow.labels("intent", "3", "failed").inc(300)
    assert shown("requests") == {"champion": 400, "challenger": 400}
    assert shown("error_ratio") == {"champion": 0, "challenger": 0.75}
    assert shown("accuracy") == shown("latency_seconds") == {}
    assert world.release.challenger == "3"
    world.operator.rollback("a test")
    assert shown("requests") == shown("error_ratio") == {}


@pytest.mark.parametrize(("fails", "challenger"), [(0, "3"), (300, None)])
def test_without_a_database_a_challenger_that_fails_is_taken_out_and_none_is_promoted(
    lonely_world: World, fails: int, challenger: str | None
) -> None:
    world = lonely_world
    world.operator.challenge("3", "canary", 0.1, "a test")
    world.loop.step()
    world.answer("3", 300, fails)
    world.answer("2", 300)
    world.loop.step()
    assert (world.release.champion, world.release.challenger) == ("2", challenger)


def test_without_a_database_a_promotion_that_fails_is_taken_back(lonely_world: World) -> None:
    lonely_world.loop.step()
    lonely_world.answer("2", 300, 300)
    lonely_world.loop.step()
    assert lonely_world.release.champion == "1"


def test_the_loop_hands_over_what_was_moved_without_a_database(world: World) -> None:
    away = Store("postgresql://nobody@127.0.0.1:1/none", patience_s=0.2)
    Rollout(world.home, away, "intent", "ops").rollback("now")
    assert world.store.audit.entries("intent")[0].action == "promote"
    world.loop.step_task("intent")
    assert world.store.audit.entries("intent")[0].action == "rollback"


def test_the_registry_follows_each_move_whoever_made_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.controller.registry_sync.RETRY_AFTER_S", 0.1)
    world.loop.step_task("intent")
    assert world.runs.followed == []  # what was moved before is taken to be followed
    world.operator.promote("3", "over HTTP")
    world.loop.step_task("intent")
    world.loop.step_task("intent")  # it is under way
    assert world.runs.followed == ["intent"]
    world.runs.result = False  # MLflow is away
    world.loop.step_task("intent")
    assert world.runs.followed == ["intent"]  # there is a pause
    time.sleep(0.2)
    world.loop.step_task("intent")
    assert world.runs.followed == ["intent"] * 2
    write_aliased(world.home, world.release)
    world.runs.result = True
    world.loop.step_task("intent")
    world.loop.step_task("intent")
    assert world.runs.followed == ["intent"] * 2
