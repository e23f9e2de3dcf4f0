"""Processes that count documents, together and killed at any moment: each document counts once in the end."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

from models.feedback.store import Store
from models.feedback.store.opinion import ALL, COUNTS
from models.opinion.types import Counts
from tests.helpers.opinion import absorb_all, documents, send
from tests.helpers.processes import SPAWN, TIMEOUT_S
from tests.helpers.store_fixtures import NOW

_DOCUMENTS, _ROUNDS = 400, 2


def _count_until_killed(url: str, started: Event) -> None:
    store = Store(url, patience_s=60)
    started.set()
    while True:
        absorb_all(store, limit=5)
        time.sleep(0.001)


def counted(store: Store, topic: str, step_s: int) -> Counts:
    start = int((NOW - timedelta(days=30)).timestamp()) // 900 * 900
    rows = store.opinion.sums("sentiment", topic, step_s, start, start + 60 * 86_400, 86_400)
    return Counts(**{name: sum(row[i] for row in rows) for i, name in enumerate(COUNTS, start=1)})


def counted_in_peace(url: str) -> Counts:
    """What one process that nobody kills counts of the same documents."""
    store = Store(url)
    send(store, *documents(random.Random(7), _DOCUMENTS))
    absorb_all(store)
    counts = counted(store, ALL, 60)
    store.close()
    return counts


def test_each_document_counts_once_however_often_those_who_count_are_killed(url: str, tmp_path: Path) -> None:
    """Two processes at a time, as during an update; what arrived before a kill arrives once more after it."""
    chance = random.Random(5)
    sent = documents(random.Random(7), _DOCUMENTS)
    store = Store(url, patience_s=60)
    store.migrate()
    share = _DOCUMENTS // _ROUNDS
    for i in range(_ROUNDS):
        started = [SPAWN.Event(), SPAWN.Event()]
        processes = [SPAWN.Process(target=_count_until_killed, args=(url, event)) for event in started]
        for process in processes:
            process.start()
        for event in started:
            assert event.wait(TIMEOUT_S)
        send(store, *sent[i * share : (i + 1) * share], *sent[max(0, i * share - 10) : i * share])
        for process in processes:
            time.sleep(chance.uniform(0.02, 0.2))
            process.kill()
            process.join(TIMEOUT_S)
    absorb_all(store)
    counts = [counted(store, ALL, step_s) for step_s in (60, 900)]
    assert counts[0] == counts[1]
    assert (counts[0].texts, store.opinion.next_batch("sentiment", 9)) == (_DOCUMENTS, [])
    once = counted_in_peace(f"sqlite:///{tmp_path}/once.db")
    assert (counts[0].positive, counts[0].neutral, counts[0].negative) == (once.positive, once.neutral, once.negative)
    by_topic = [counted(store, topic, 60).texts for topic in store.opinion.topics("sentiment")]
    assert sum(by_topic) == sum(len(item.document.topics) for item in sent)
    store.close()
