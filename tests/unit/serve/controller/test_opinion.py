"""The controller's step that counts documents: in batches, without losing one to a store that fails."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from models.feedback.store import Store, StoreUnavailable
from models.feedback.store.opinion import ALL, Absorbed
from serve.config import Config, OpinionConfig
from serve.controller import opinion
from serve.controller.loop import Loop
from serve.controller.opinion import OpinionReconciler
from serve.metrics import LoopMetrics
from tests.helpers.opinion import absorb_all, new_document, send
from tests.helpers.store_fixtures import NOW


def test_a_step_counts_what_waits_and_then_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinion, "_BATCH", 4)
    monkeypatch.setattr(opinion, "_STEP_S", 600.0)
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    send(store, *(new_document(f"text {i}", f"id {i}") for i in range(10)), new_document("again", "id 3"))
    batches: list[Absorbed] = []
    evaluated: list[int] = []
    steps = OpinionReconciler(
        OpinionConfig(), store, batches.append, lambda: evaluated.append(sum(len(batch.counted) for batch in batches))
    )
    steps.step()
    steps.step()
    assert [len(batch.counted) for batch in batches] == [4, 4, 2]
    assert sum(batch.duplicates for batch in batches) == 1
    assert evaluated == [10, 10]
    store.close()


def test_a_step_ends_after_a_second_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinion, "_BATCH", 4)
    monkeypatch.setattr(opinion, "_STEP_S", 0.0)
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    send(store, *(new_document(f"text {i}") for i in range(8)))
    steps = OpinionReconciler(OpinionConfig(), store)
    steps.step()
    assert len(store.opinion.next_batch("sentiment", 9)) == 4
    steps.step()
    assert store.opinion.next_batch("sentiment", 9) == []
    store.close()


def test_a_store_that_is_away_loses_nothing(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    send(store, new_document("a text"))

    def fail(absorbed: Absorbed) -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        OpinionReconciler(OpinionConfig(), store, fail).step()
    OpinionReconciler(OpinionConfig(), store).step()
    minute = int(NOW.timestamp())
    assert [row[1] for row in store.opinion.sums("sentiment", ALL, 60, minute, minute + 60, 60)] == [1]
    store.close()


def test_what_is_old_is_deleted_a_little_in_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinion, "_STEP_S", 0.0)
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    send(store, *(new_document(f"text {i}", published=NOW - timedelta(days=900)) for i in range(3)))
    absorb_all(store)
    steps = OpinionReconciler(OpinionConfig(), store)
    minute = int((NOW - timedelta(days=900)).timestamp())
    for left in ([1, 1], [0, 1], [0, 0]):
        stretch = (60, minute, minute + 60, 60)
        assert [len(store.opinion.sums("sentiment", topic, *stretch)) for topic in (ALL, "airlines")] == left
        steps.step()
    store.close()


class NoWorkers:
    def start_retraining(self, plan: object, owner: str) -> None: ...
    def start_drift_test(self, task: str) -> None: ...
    def start_registry_sync(self, task: str) -> None: ...
    def poll(self, handle: object) -> None: ...


@pytest.mark.parametrize(("tasks", "left"), [(("sentiment",), 0), (("intent",), 1)])
def test_the_loop_counts_for_the_task_that_is_served(tmp_path: Path, tasks: tuple[str, ...], left: int) -> None:
    from prometheus_client import CollectorRegistry

    config = Config(home=tmp_path, tasks={task: {} for task in tasks}, learning={"automatic": False})
    store = Store(config.feedback.store_url(tmp_path))
    send(store, new_document("a text"))
    Loop(config, store, LoopMetrics(CollectorRegistry()), NoWorkers()).step()
    assert len(store.opinion.next_batch("sentiment", 9)) == left
    store.close()


def test_a_step_that_leaves_documents_waiting_is_followed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opinion, "_BATCH", 4)
    monkeypatch.setattr(opinion, "_STEP_S", 0.0)
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    send(store, *(new_document(f"text {i}") for i in range(10)))
    evaluated: list[int] = []
    steps = OpinionReconciler(OpinionConfig(), store, evaluate=lambda: evaluated.append(1))
    behind = []
    for _ in range(4):
        steps.step()
        behind.append(steps.behind)
    assert behind == [True, True, False, False]
    assert len(evaluated) == 3  # the first time, and when nothing waited: what is loaded is evaluated in one go
    store.close()
