"""Several processes on one database, and processes that die."""

from __future__ import annotations

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor

from models.feedback.store import Store
from tests.helpers.processes import PROCESSES, SPAWN, TIMEOUT_S, together
from tests.helpers.store_fixtures import add, correction, fill_queue, made, newest, prediction


def _add_and_die(url: str) -> None:
    store = Store(url)
    store.predictions.log([prediction(2)])
    if [r.outcome for r in store.feedback.add([correction(1), correction(2)], keep_days=30)] == ["accepted"] * 2:
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_accepted_survives_kill_9(url: str) -> None:
    store = Store.open(url)
    store.predictions.log([prediction(1)])
    process = SPAWN.Process(target=_add_and_die, args=(url,))
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == -signal.SIGKILL
    assert {sample.prediction_id for sample in newest(store, "intent", 9)} == {made(1), made(2)}
    assert add(store, correction(1), correction(2)) == ["duplicate"] * 2
    store.close()


def _post_the_same(store: Store, number: int) -> int:
    """Forty corrections in batches of ten, each batch in an order of this process's own; how many were new."""
    chance = random.Random(number)
    accepted = 0
    for _ in range(10):
        numbers = chance.sample(range(40), 40)
        for start in range(0, 40, 10):
            accepted += add(store, *[correction(i) for i in numbers[start : start + 10]]).count("accepted")
    return accepted


def test_the_same_feedback_from_four_processes_is_stored_once(url: str) -> None:
    store = Store.open(url)
    store.predictions.log([prediction(i) for i in range(40)])
    assert sum(together(_post_the_same, url)) == 40
    assert store.feedback.counts("intent")["waiting"] == 40
    store.close()


def _change_labels(store: Store, number: int) -> int:
    """The same rows with labels that differ: updates in an order of this process's own."""
    chance = random.Random(number)
    for round_ in range(10):
        outcomes = add(store, *[correction(i, f"{number} {round_}") for i in chance.sample(range(20), 20)])
        assert set(outcomes) <= {"accepted", "replaced"}
    return len(newest(store, "intent", 99))


def test_four_processes_change_the_same_rows(url: str) -> None:
    store = Store.open(url)
    store.predictions.log([prediction(i) for i in range(20)])
    assert together(_change_labels, url) == [20] * PROCESSES
    assert len({sample.label for sample in newest(store, "intent", 99)}) == 1  # the last batch, whole
    store.close()


def _lease_all(store: Store, number: int) -> list[int]:
    ids: list[int] = []
    while leased := store.queue.lease("intent", f"trainer {number}", 10, 3600):
        ids += [sample.id for sample in leased]
        assert store.queue.settle(f"trainer {number}", dict.fromkeys([leased[0].id], ("used", None))) == 1
    return ids


def test_no_sample_is_leased_to_two(url: str) -> None:
    store = Store.open(url)
    fill_queue(store, 400)
    leased = together(_lease_all, url)
    assert sum(len(ids) for ids in leased) == 400
    assert len({id_ for ids in leased for id_ in ids}) == 400
    counts = store.feedback.counts("intent")
    assert (counts["waiting"], counts["leased"] + counts["used"]) == (0, 400)
    store.close()


def _open_and_add(store: Store, number: int) -> str:
    return add(store, correction(text="from all of them"))[0]


def test_four_processes_open_an_empty_database_at_once(url: str) -> None:
    assert sorted(together(_open_and_add, url)) == ["accepted", "duplicate", "duplicate", "duplicate"]


def _lock(store: Store, number: int) -> bool:
    return store.locks.acquire("retrain intent", str(number), 3600)


def test_one_of_four_processes_gets_the_lock(url: str) -> None:
    Store.open(url).close()
    assert sorted(together(_lock, url)) == [False, False, False, True]


def test_threads_share_a_store(url: str) -> None:
    store = Store.open(url, patience_s=60)

    def post(number: int) -> list[str]:
        return add(store, correction(text=f"{number // 2}"), correction(text="all"))

    with ThreadPoolExecutor(8) as threads:
        outcomes = [outcome for found in threads.map(post, range(80)) for outcome in found]
    assert outcomes.count("accepted") == 41
    assert store.feedback.counts("intent")["waiting"] == 41
    store.close()
