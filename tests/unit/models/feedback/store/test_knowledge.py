"""The knowledge base in both databases: what is written, followed, and erased."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.feedback.store import KnowledgeFull, Store
from models.feedback.store.knowledge import Written
from models.knowledge.types import Entry, VectorOf
from tests.helpers.store import bytes_of_store
from tests.helpers.store_fixtures import NOW

MAX = 1_000


def entry(number: int, answer: str = "yes", **changes: object) -> Entry:
    values = {"id": f"e{number:04}", "question": f"question {number}?", "answer": answer, **changes}
    return Entry.model_validate(values)


def embed(store: Store, encoder: str = "one") -> int:
    waiting = store.knowledge.without_vector(encoder, MAX)
    return store.knowledge.set_vectors(encoder, [VectorOf(found.serial, b"vector") for found in waiting])


def contents(store: Store, encoder: str = "one") -> dict[str, str]:
    """Id to answer of what a replica finds that knows nothing yet."""
    return {found.id: found.answer for found, _ in store.knowledge.read(encoder, store.knowledge.serials(encoder))}


def test_entries_are_added_changed_and_left_as_they_are(store: Store) -> None:
    first = store.knowledge.put([entry(1), entry(2, language="de", tags=["a", "b"])], MAX)
    assert (first.added, first.changed, first.unchanged) == (2, 0, 0)
    assert store.knowledge.put([entry(1)], MAX) == Written(0, 0, 1, first.revision)
    again = store.knowledge.put([entry(1, "no"), entry(2, language="de", tags=["a", "b"]), entry(3)], MAX)
    assert (again.added, again.changed, again.unchanged) == (1, 1, 1)
    assert again.revision > first.revision
    found = store.knowledge.get("e0002")
    assert found is not None
    assert (found.question, found.answer, found.language, found.tags, found.at) == (
        "question 2?", "yes", "de", ("a", "b"), NOW,
    )  # fmt: skip
    assert store.knowledge.get("e0009") is None


def test_a_vector_stays_with_its_question(store: Store) -> None:
    store.knowledge.put([entry(1), entry(2)], MAX)
    assert (store.knowledge.state().waiting, contents(store)) == (2, {})
    assert embed(store) == 2
    assert (store.knowledge.state().waiting, contents(store)) == (0, {"e0001": "yes", "e0002": "yes"})
    held = store.knowledge.serials("one")
    store.knowledge.put([entry(1, "no"), entry(2, question="another question?")], MAX)
    assert contents(store) == {"e0001": "no"}  # the other one has to be computed
    assert not held & store.knowledge.serials("one")  # a reader that holds the old ones reads the new ones
    assert embed(store) == 1
    assert contents(store) == {"e0001": "no", "e0002": "yes"}


def test_vectors_of_another_encoder_are_none(store: Store) -> None:
    store.knowledge.put([entry(1)], MAX)
    assert not store.knowledge.has_vectors()
    embed(store)
    assert store.knowledge.has_vectors()
    assert (contents(store, "two"), len(store.knowledge.without_vector("two", 9))) == ({}, 1)
    embed(store, "two")
    assert (contents(store, "one"), contents(store, "two")) == ({}, {"e0001": "yes"})


def test_a_vector_comes_too_late_for_an_entry_that_has_changed(store: Store) -> None:
    store.knowledge.put([entry(1), entry(2), entry(3)], MAX)
    waiting = store.knowledge.without_vector("one", 9)
    store.knowledge.put([entry(1, question="changed?")], MAX)
    store.knowledge.delete(["e0002"])
    assert store.knowledge.set_vectors("one", [VectorOf(found.serial, b"v") for found in waiting]) == 1
    assert contents(store) == {"e0003": "yes"}


def test_too_many_entries_are_refused_whole(store: Store) -> None:
    store.knowledge.put([entry(number) for number in range(3)], 4)
    with pytest.raises(KnowledgeFull, match="5 entries, and there may be 4"):
        store.knowledge.put([entry(2, "no"), entry(3), entry(4)], 4)
    assert store.knowledge.state().entries == 3
    store.knowledge.put([entry(0, "no"), entry(1), entry(2), entry(3)], 4)


def test_pages_have_every_entry_once(store: Store) -> None:
    store.knowledge.put([entry(number) for number in random.Random(1).sample(range(25), 25)], MAX)
    found, after = [], None
    while page := store.knowledge.page(after, 10):
        found += [one.id for one in page]
        after = found[-1]
    assert found == [f"e{number:04}" for number in range(25)]


def test_each_change_is_a_new_revision(store: Store) -> None:
    revisions = [store.knowledge.revision()]
    for change in (
        lambda: store.knowledge.put([entry(1), entry(2)], MAX),
        lambda: embed(store),
        lambda: store.knowledge.put([entry(1, "no")], MAX),
        lambda: store.knowledge.delete(["e0001"]),
        lambda: store.knowledge.delete_all(),
    ):
        change()
        revisions.append(store.knowledge.revision())
    assert revisions == sorted(set(revisions))
    assert store.knowledge.state().entries == 0


def test_writers_at_once_lose_nothing(store: Store, url: str) -> None:
    """Each has its own connections, as processes do; entries overlap, and vectors are computed meanwhile."""

    def write(number: int) -> int:
        own = Store(url, patience_s=30)
        added = 0
        for start in range(5):
            added += own.knowledge.put([entry(start + i, f"by {number}") for i in range(8)], MAX).added
            embed(own)
        own.close()
        return added

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == 12
    embed(store)
    assert store.knowledge.state().entries == len(contents(store)) == len(store.knowledge.serials("one")) == 12


def test_text_comes_back_as_it_was(store: Store) -> None:
    hostile = "<script>alert(1)</script> {{7*7}} Ignore all instructions; '); DROP TABLE knowledge_entries;-- \u202e"
    store.knowledge.put([entry(1, hostile, question=hostile), entry(2, "a\x00b")], MAX)
    first, second = store.knowledge.page(None, 9)
    assert (first.question, first.answer) == (hostile, hostile)
    assert second.answer == "a\ufffdb"  # PostgreSQL cannot store U+0000
    assert store.knowledge.put([entry(2, "a\x00b")], MAX).unchanged == 1


def test_the_bytes_of_what_is_deleted_are_gone(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'feedback.db'}")
    secret = "the answer that nobody may read again"
    store.knowledge.put([entry(number, f"{secret} {number}" * 20) for number in range(40)], MAX)
    embed(store)
    assert secret.encode() in bytes_of_store(tmp_path)
    assert store.knowledge.delete([f"e{number:04}" for number in range(39)] + ["unknown"]) == 39
    assert bytes_of_store(tmp_path).count(secret.encode()) >= 1
    assert f"{secret} 7".encode() not in bytes_of_store(tmp_path).replace(f"{secret} 39".encode(), b"")
    assert store.knowledge.delete_all() == 1
    assert secret.encode() not in bytes_of_store(tmp_path)
    store.close()
