"""The controller gives entries their vectors, and has the encoder made when the first entry comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.feedback.store import Store
from models.knowledge.types import Entry
from serve.controller import knowledge
from serve.controller.knowledge import KnowledgeReconciler
from tests.helpers.tiny_encoder import NoWorkers, tiny_encoder


class Makers(NoWorkers):
    """Workers that make the encoder of `home`, or say `problem`, when they are polled for the second time."""

    def __init__(self, home: Path, problem: str = ""):
        self.home, self.problem, self.started, self.polled = home, problem, 0, 0

    def start_sentence_encoder(self) -> Any:
        self.started += 1
        self.polled = 0
        return self.started

    def poll(self, handle: Any) -> Any:
        assert handle == self.started
        self.polled += 1
        if self.polled < 2:
            return None
        if not self.problem:
            tiny_encoder(self.home)
        return self.problem


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    yield store
    store.close()


def put(store: Store, count: int) -> None:
    entries = [Entry(id=f"e{i}", question=f"how do i return order {i}", answer="so") for i in range(count)]
    store.knowledge.put(entries, 10_000)


def test_without_entries_no_encoder_is_made(tmp_path: Path, store: Store) -> None:
    makers = Makers(tmp_path)
    reconciler = KnowledgeReconciler(tmp_path, store, makers)
    for _ in range(3):
        reconciler.step()
    assert makers.started == 0


def test_the_first_entry_has_the_encoder_made_once(tmp_path: Path, store: Store) -> None:
    makers = Makers(tmp_path)
    reconciler = KnowledgeReconciler(tmp_path, store, makers)
    put(store, 3)
    waiting = []
    for _ in range(4):
        reconciler.step()
        waiting.append(store.knowledge.state().waiting)
    assert (waiting, makers.started) == ([3, 3, 0, 0], 1)
    put(store, 200)
    reconciler.step()
    assert store.knowledge.state().waiting == 0
    assert not reconciler.behind
    again = KnowledgeReconciler(tmp_path, store, NoWorkers())  # after a restart
    put(store, 201)
    again.step()
    assert store.knowledge.state().waiting == 0


def test_an_encoder_that_cannot_be_made_is_tried_again_later(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    makers = Makers(tmp_path, "there is no torch")
    reconciler = KnowledgeReconciler(tmp_path, store, makers)
    put(store, 1)
    for _ in range(6):
        reconciler.step()
    assert (makers.started, store.knowledge.state().waiting) == (1, 1)
    assert "there is no torch" in caplog.text
    monkeypatch.setattr(knowledge.time, "monotonic", lambda: 10**9)
    makers.problem = ""
    for _ in range(3):
        reconciler.step()
    assert (makers.started, store.knowledge.state().waiting) == (2, 0)


def test_a_step_ends_after_a_second_and_the_next_goes_on(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_encoder(tmp_path)
    monkeypatch.setattr(knowledge, "_STEP_S", -1.0)
    monkeypatch.setattr(knowledge, "_BATCH", 10)
    reconciler = KnowledgeReconciler(tmp_path, store, NoWorkers())
    put(store, 25)
    reconciler.step()
    assert (reconciler.behind, store.knowledge.state().waiting) == (True, 15)
    for _ in range(3):
        reconciler.step()
    assert (reconciler.behind, store.knowledge.state().waiting) == (False, 0)


def test_another_encoder_computes_all_vectors_again(tmp_path: Path, store: Store) -> None:
    old, new = (tiny_encoder(tmp_path / name, name).manifest.data.fingerprint for name in ("old", "new"))
    put(store, 70)
    KnowledgeReconciler(tmp_path / "old", store, NoWorkers()).step()
    assert len(store.knowledge.serials(old)) == 70
    KnowledgeReconciler(tmp_path / "new", store, NoWorkers()).step()  # after a restart with the other one
    assert (len(store.knowledge.serials(old)), len(store.knowledge.serials(new))) == (0, 70)
