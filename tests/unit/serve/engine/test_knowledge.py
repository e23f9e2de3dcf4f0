"""A replica's knowledge base: how it follows the store, when it is asked, and what it does while the store is away."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.feedback.store import KnowledgeFull, Store
from models.knowledge.types import Entry, VectorOf
from models.tasks.intent import IntentRequest
from serve.config import Config, KnowledgeConfig
from serve.engine import knowledge
from serve.engine.knowledge import KnowledgeBase, KnowledgeFollower
from serve.engine.replica import Replica
from serve.errors import DeadlineExceeded, Overloaded
from tests.helpers.collectors import registry_restored
from tests.helpers.postgres import PostgresMissing, postgres_server
from tests.helpers.tiny_encoder import compute_vectors, tiny_encoder
from tests.helpers.tiny_readers import SURE, tiny_home

RETURN, PASSWORD = "how do i return an item", "forgot my password"
SURE_TEXT = next(iter(SURE))


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    with registry_restored():
        yield


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tiny_home(tmp_path_factory.mktemp("served"))
    tiny_encoder(home)
    return home


def entry(id_: str, question: str, answer: str = "an answer", language: str | None = None) -> Entry:
    return Entry(id=id_, question=question, answer=answer, language=language)


def put(home: Path, store: Store, *entries: Entry) -> None:
    store.knowledge.put(entries, 1000)
    compute_vectors(home, store)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    tiny_encoder(tmp_path)
    made = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    yield made
    made.close()


def test_a_base_without_entries_opens_no_encoder(tmp_path: Path, store: Store) -> None:
    base = KnowledgeBase(tmp_path, store)
    base.refresh()
    assert base.search("anything", None) == []
    store.knowledge.put([entry("a", RETURN)], 9)
    base.refresh()
    assert base._encoder is None
    assert base.search(RETURN, None) == []
    compute_vectors(tmp_path, store)
    base.refresh()
    assert [match.id for match in base.search(RETURN, None)] == ["a"]


def test_a_base_reads_what_is_new_and_drops_what_is_gone(tmp_path: Path, store: Store) -> None:
    put(tmp_path, store, entry("a", RETURN), entry("b", PASSWORD))
    base = KnowledgeBase(tmp_path, store, cache_size=10)
    base.refresh()
    before = base.snapshot
    base.refresh()
    assert base.snapshot is before
    put(tmp_path, store, entry("a", RETURN, "another answer"), entry("c", "ship to canada"))
    store.knowledge.delete(["b"])
    base.refresh()
    assert [(one.id, one.answer) for one in base.snapshot.index.entries] == [
        ("a", "another answer"),
        ("c", "an answer"),
    ]
    assert [match.answer for match in base.search(RETURN, None)] == ["another answer"]
    assert base.search(PASSWORD, None) == []


def test_a_text_gets_one_answer_alone_and_among_others(tmp_path: Path, store: Store) -> None:
    put(tmp_path, store, *(entry(f"e{i}", text) for i, text in enumerate((RETURN, PASSWORD, "where is my order"))))
    base = KnowledgeBase(tmp_path, store, cache_size=2)
    base.refresh()
    texts = [RETURN, "forgot password", "where my order is", "send back an item", "my my my"] * 3
    alone = [base.search(text, None, 3, 0) for text in texts[:5]]
    assert [base.search(text, None, 3, 0) for text in texts] == alone * 3


def test_a_base_that_starts_while_entries_are_replaced_has_them_in_the_end(tmp_path: Path, store: Store) -> None:
    """What it reads meanwhile is a mixture of whole entries, old and new; the last revision is complete."""
    ended = threading.Event()

    def replace() -> None:
        for round_ in range(25):
            put(tmp_path, store, *(entry(f"e{i}", f"{RETURN} {i}", f"round {round_}") for i in range(30)))
            store.knowledge.delete([f"e{(round_ + i) % 30}" for i in range(3)])
        put(tmp_path, store, *(entry(f"e{i}", f"{RETURN} {i}", "the last") for i in range(30)))
        ended.set()

    thread = threading.Thread(target=replace)
    thread.start()
    reader = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    seen = set()
    try:
        while not ended.is_set():
            base = KnowledgeBase(tmp_path, reader)
            base.refresh()
            index = base.snapshot.index
            assert len({one.id for one in index.entries}) == len(index.entries) <= 30
            seen |= {one.answer for one in index.entries}
        thread.join()
        base.refresh()
        assert [one.answer for one in base.snapshot.index.entries] == ["the last"] * 30
        assert len(seen) > 1
    finally:
        reader.close()


def test_entries_without_the_encoder_of_this_home_are_a_fault(tmp_path: Path) -> None:
    store, home = Store(f"sqlite:///{tmp_path / 'feedback.db'}"), tmp_path / "other"
    tiny_encoder(home)
    put(home, store, entry("a", RETURN))
    with pytest.raises(Exception, match="has no encoder"):
        KnowledgeBase(tmp_path, store).refresh()
    store.close()


def ask(home: Path, *requests: dict[str, Any], **settings: Any) -> list[list[dict[str, Any]]]:
    """The predictions of a new replica for each request, once it has taken up the knowledge base."""

    async def run() -> list[list[dict[str, Any]]]:
        config = Config(home=home, knowledge=KnowledgeConfig(min_similarity=0.5), **settings)
        replica = Replica("intent", config)
        await replica.start()
        try:
            for _ in range(200):
                if replica.metadata()["knowledge"]["entries"]:
                    break
                await asyncio.sleep(0.02)
            answers = []
            for request in requests:
                asked = IntentRequest.model_validate(request)
                answer = await replica.answer(replica.choose(None), asked, time.monotonic() + 5)
                answers.append(answer["predictions"])
            return answers
        finally:
            await replica.stop()

    return asyncio.run(run())


def test_predictions_have_the_nearest_entry(served: Path) -> None:
    store = Store(f"sqlite:///{served / 'feedback.db'}")
    put(served, store, entry("ret", RETURN), entry("pw", PASSWORD, language="en"), entry("pw2", PASSWORD, "de", "de"))
    asked, unsure, together, german = ask(
        served,
        {"text": PASSWORD, "knowledge": True},
        {"text": RETURN},
        {"texts": [SURE_TEXT, RETURN, "ship to canada"], "knowledge": True},
        {"text": PASSWORD, "knowledge": True, "language": "de"},
        tasks={"intent": {"options": {"answers": False}}},
    )
    assert asked[0]["nearest"] == {"question": PASSWORD, "answer": "an answer", "similarity": 1.0, "id": "pw"}
    assert unsure[0]["nearest"]["id"] == "ret"
    assert ["nearest" in one for one in together] == [False, True, False]
    assert german[0]["nearest"]["id"] == "pw2"
    assert together[1]["nearest"] == unsure[0]["nearest"]
    assert [(one["handoff"], one.get("reason")) for one in together[:1]] == [(True, "nothing_known")]
    store.close()


def test_a_replica_without_entries_answers_as_before(tmp_path: Path) -> None:
    home = tiny_home(tmp_path / "home")

    async def run() -> dict[str, Any]:
        replica = Replica("intent", Config(home=home))
        await replica.start()
        try:
            request = IntentRequest(text=SURE_TEXT, knowledge=True)
            return await replica.answer(replica.choose(None), request, time.monotonic() + 5)
        finally:
            await replica.stop()

    [prediction] = asyncio.run(run())["predictions"]
    assert "nearest" not in prediction
    assert not prediction["handoff"]


def test_a_replica_goes_on_with_what_it_has_while_the_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(knowledge, "_FOLLOW_EVERY_S", 0.05)
    tiny_encoder(tmp_path)
    try:
        server_context = postgres_server()
        server = server_context.__enter__()
    except PostgresMissing as missing:
        pytest.skip(str(missing))

    async def run() -> None:
        store = Store(server.new_database(), patience_s=2)
        put(tmp_path, store, entry("a", RETURN))
        follower = KnowledgeFollower(KnowledgeBase(tmp_path, store), 0.5, lambda: 1.0)
        follower.start()

        async def has(*ids: str) -> None:
            ends = time.monotonic() + 20
            while follower.metadata["entries"] != len(ids):
                assert time.monotonic() < ends
                await asyncio.sleep(0.02)
            [match] = await follower.ask([RETURN], None)
            assert match is not None

        await has("a")
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.3)
        await has("a")
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(put, tmp_path, store, entry("b", PASSWORD))
        await has("a", "b")
        await follower.stop()
        store.close()

    try:
        asyncio.run(run())
    finally:
        server_context.__exit__(None, None, None)
    assert sum("the knowledge base stays at revision" in record.message for record in caplog.records) >= 1
    assert len(caplog.records) < 10  # not one each time


def test_too_many_waiting_texts_are_refused_and_a_late_answer_is_none(tmp_path: Path, store: Store) -> None:
    put(tmp_path, store, entry("a", RETURN))
    base = KnowledgeBase(tmp_path, store)
    base.refresh()

    async def run() -> None:
        follower = KnowledgeFollower(base, 0.5, lambda: 0.01)
        first = follower.ask([RETURN] * 50, None)
        with pytest.raises(Overloaded, match="knowledge base is busy"):
            follower.ask([RETURN] * 5, None)
        assert [match is not None for match in await first] == [True] * 50
        assert await follower.ask([RETURN], None)
        await follower.stop()

    asyncio.run(run())


def test_a_deadline_that_passes_is_told(served: Path) -> None:
    store = Store(f"sqlite:///{served / 'feedback.db'}")
    put(served, store, entry("ret", RETURN))
    base = KnowledgeBase(served, store)
    base.refresh()

    async def run() -> None:
        follower = KnowledgeFollower(base, 0.5, lambda: 10.0)
        replica = Replica("intent", Config(home=served))
        asking = knowledge.Asking(
            follower, replica.choose(None).task, IntentRequest(texts=[RETURN] * 3000, knowledge=True), [RETURN] * 3000
        )
        with pytest.raises(DeadlineExceeded):
            await asking.add_to([{"label": "a", "handoff": True}] * 3000, time.monotonic() + 0.001)
        await follower.stop()

    asyncio.run(run())
    store.close()


@pytest.mark.slow
def test_100_000_entries_are_taken_up_and_searched(tmp_path: Path, store: Store) -> None:
    for start in range(0, 100_000, 1_000):
        store.knowledge.put([entry(f"e{i}", f"{RETURN} {i}") for i in range(start, start + 1_000)], 100_000)
    with pytest.raises(KnowledgeFull):
        store.knowledge.put([entry("one-more", RETURN)], 100_000)
    fingerprint = tiny_encoder(tmp_path / "other").manifest.data.fingerprint
    chance = np.random.default_rng(0)
    while waiting := store.knowledge.without_vector(fingerprint, 5_000):
        vectors = chance.normal(size=(len(waiting), 32)).astype(np.float16)
        vectors /= np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True).astype(np.float16)
        found = [VectorOf(one.serial, row.tobytes()) for one, row in zip(waiting, vectors, strict=True)]
        store.knowledge.set_vectors(fingerprint, found)
    base = KnowledgeBase(tmp_path, store)
    base.refresh()
    assert len(base.snapshot.index.entries) == 100_000
    assert len(base.search(RETURN, None, 50, 0)) == 50
    store.knowledge.put([entry("e7", RETURN, "changed")], 100_000)
    store.knowledge.delete(["e8"])
    base.refresh()
    assert len(base.snapshot.index.entries) == 99_998
