"""The search in memory: which entries are near, in which order, and that it does not depend on how the index came."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from models.knowledge.index import KnowledgeIndex, Query
from models.knowledge.types import StoredEntry
from tests.helpers.store_fixtures import NOW

SIZE = 8


def stored(number: int, language: str | None = None) -> StoredEntry:
    return StoredEntry(number, f"e{number}", f"question {number}", f"answer {number}", language, (), NOW)


def unit(*values: float) -> np.ndarray:
    vector = np.zeros(SIZE, np.float32)
    vector[: len(values)] = values
    return vector / np.linalg.norm(vector)


def index(vectors: Sequence[np.ndarray], languages: Sequence[str | None] = ()) -> KnowledgeIndex:
    entries = [stored(i, languages[i] if languages else None) for i in range(len(vectors))]
    return KnowledgeIndex.empty().updated(set(), entries, vectors)


def ids(found: KnowledgeIndex, query: Query, limit: int = 5, least: float = 0.1) -> list[str]:
    return [match.id for match in found.search(query, limit, least)]


def test_the_nearest_come_first_and_the_rest_is_left_out() -> None:
    found = index([unit(1, 0), unit(1, 1), unit(0, 1), unit(-1, 0)])
    query = Query(unit(1, 0.2))
    assert ids(found, query, least=0.3) == ["e0", "e1"]
    assert ids(found, query, 1) == ["e0"]
    assert found.search(query, 5, 0.99) == []
    assert KnowledgeIndex.empty().search(query) == []


def test_entries_of_the_language_come_before_nearer_ones_of_others() -> None:
    found = index([unit(1, 0), unit(1, 0.4), unit(0, 0, 1), unit(1, 0.2)], ["en", "de-AT", "de", None])
    assert ids(found, Query(unit(1, 0), "de"), least=0.3) == ["e1", "e0", "e3"]
    assert ids(found, Query(unit(1, 0), "DE-de"), 1, 0.3) == ["e1"]
    assert ids(found, Query(unit(1, 0), "fr"), 1, 0.3) == ["e0"]  # nothing of it: others
    assert ids(found, Query(unit(0, 0, 1), "en"), 1, 0.3) == ["e2"]


def test_an_index_that_was_changed_is_the_one_made_anew() -> None:
    chance = random.Random(4)
    vectors = [unit(*(chance.gauss(0, 1) for _ in range(SIZE))) for _ in range(60)]
    entries = [stored(number) for number in range(60)]
    changed, held = KnowledgeIndex.empty(), set[int]()
    for _ in range(20):
        there = set(chance.sample(range(60), chance.randrange(60)))
        kept, new = held & there, sorted(there - held)
        changed = changed.updated(kept, [entries[i] for i in new], [vectors[i] for i in new])
        held = there
    numbers = sorted(held)
    anew = KnowledgeIndex.empty().updated(set(), [entries[i] for i in numbers], [vectors[i] for i in numbers])
    assert len(numbers) > 5
    query = Query(unit(1, 1))
    assert changed.search(query, 60, 0) == anew.search(query, 60, 0)
