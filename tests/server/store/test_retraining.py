"""Requests for a retraining: their states, runs that race for them, and runs that were killed."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from models.feedback.store import RetrainingRequest, Store, StoreUnavailable
from tests.helpers.postgres import PostgresServer
from tests.helpers.processes import SPAWN, TIMEOUT_S, together
from tests.helpers.store_fixtures import NOW, Clock

LOCK = "retrain-intent"


def states(store: Store, task: str = "intent") -> list[str]:
    """Of the task's requests, oldest first."""
    return [request.state for request in reversed(store.retraining.latest(task))]


def test_a_request_from_asking_to_its_end(store: Store, clock: Clock) -> None:
    assert store.retraining.next("intent") is None
    id_ = store.retraining.request("intent", "ops", "before the sale")
    asked = RetrainingRequest(
        id_, "intent", "requested", "ops", "before the sale", NOW, None, None, None, None, None, attempts=0
    )
    assert store.retraining.next("intent") == asked
    assert store.retraining.next("sentiment") is None
    [entry] = store.audit.entries("intent")
    assert (entry.at, entry.action, entry.actor, entry.reason) == (NOW, "retrain asked", "ops", "before the sale")
    clock.pass_(seconds=10)
    started = clock.now
    assert store.retraining.start("intent") == [id_]
    assert store.retraining.start("intent") == []
    assert store.retraining.next("intent") is None
    clock.pass_(seconds=10)
    assert store.retraining.finish("intent", "released", "It won.", "4") == 1
    assert store.retraining.latest("intent") == [
        RetrainingRequest(
            id_, "intent", "done", "ops", "before the sale", NOW, started, clock.now, "released", "It won.", "4", 1
        )
    ]
    assert store.retraining.finish("intent", "failed", "late") == 0


def test_a_run_satisfies_what_was_asked_before_it_started(store: Store) -> None:
    first, second = (store.retraining.request("intent", "ops", reason) for reason in ("a", "b"))
    other = store.retraining.request("sentiment", "ops", "c")
    assert store.retraining.start("intent") == [first, second]
    assert store.retraining.start("intent") == []
    third = store.retraining.request("intent", "ops", "d")
    assert store.retraining.finish("intent", "failed", "out of memory") == 2
    assert states(store) == ["failed", "failed", "requested"]
    found = store.retraining.next("intent")
    assert found is not None
    assert found.id == third
    assert states(store, "sentiment") == ["requested"]
    assert store.retraining.start("sentiment") == [other]
    assert store.retraining.finish("sentiment", "refused", "It lost.") == 1
    assert states(store, "sentiment") == ["done"]


def test_the_oldest_is_next_and_the_newest_is_first(store: Store) -> None:
    ids = [store.retraining.request("intent", "ops", str(number)) for number in range(3)]
    found = store.retraining.next("intent")
    assert found is not None
    assert found.id == ids[0]
    assert [request.id for request in store.retraining.latest("intent", 2)] == [ids[2], ids[1]]


def test_a_run_that_was_killed_is_made_once_more(store: Store, clock: Clock) -> None:
    store.retraining.request("intent", "ops", "a")
    store.retraining.start("intent")
    assert store.locks.acquire(LOCK, "a run", 600)
    assert store.retraining.recover("intent", LOCK) == (0, 0)  # it is still at work
    assert store.locks.release(LOCK, "a run")
    assert store.retraining.recover("sentiment", LOCK) == (0, 0)
    assert store.retraining.recover("intent", LOCK) == (1, 0)
    [request] = store.retraining.latest("intent")
    assert (request.state, request.started_at, request.attempts) == ("requested", None, 1)

    store.retraining.start("intent")
    assert store.locks.acquire(LOCK, "another run", 60)
    clock.pass_(seconds=61)  # it was killed: its lock has expired
    younger = store.retraining.request("intent", "ops", "b")
    assert store.retraining.start("intent") == [younger]
    assert store.retraining.recover("intent", LOCK) == (1, 1)
    assert states(store) == ["failed", "requested"]
    failed = store.retraining.latest("intent")[-1]
    assert (failed.outcome, failed.sentence, failed.ended_at) == ("failed", "Its run was killed 2 times.", clock.now)


def test_a_request_and_its_audit_entry_are_one_transaction(store: Store) -> None:
    store.database.write(lambda connection: connection.execute(text("ALTER TABLE retraining_requests RENAME TO away")))
    with pytest.raises(StoreUnavailable, match="has no tables"):
        store.retraining.request("intent", "ops", "a")
    assert store.audit.entries("intent") == []


def _start(store: Store, number: int) -> list[int]:
    return store.retraining.start("intent")


def test_of_four_processes_one_starts_each_request(url: str) -> None:
    store = Store.open(url)
    ids = [store.retraining.request("intent", "ops", str(number)) for number in range(6)]
    results = together(_start, url)
    assert sorted(id_ for started in results for id_ in started) == ids == [1, 2, 3, 4, 5, 6]
    assert {request.attempts for request in store.retraining.latest("intent")} == {1}
    store.close()


def test_of_many_threads_one_takes_a_request_back(store: Store, clock: Clock) -> None:
    for number in range(3):
        store.retraining.request("intent", "ops", str(number))
    store.retraining.start("intent")
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: store.retraining.recover("intent", LOCK), range(16)))
    assert sum(again for again, _ in found) == 3
    assert sum(failed for _, failed in found) == 0
    assert states(store) == ["requested"] * 3


def _ask_and_die(url: str) -> None:
    store = Store(url)
    store.retraining.request("intent", "ops", "a")
    store.retraining.start("intent")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_request_whose_process_was_killed_is_still_there(url: str) -> None:
    process = SPAWN.Process(target=_ask_and_die, args=(url,))
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == -signal.SIGKILL
    store = Store(url)
    assert states(store) == ["running"]
    assert store.retraining.recover("intent", LOCK) == (1, 0)
    assert len(store.audit.entries("intent")) == 1
    store.close()


def test_requests_while_the_database_is_away(postgres: PostgresServer) -> None:
    store = Store.open(postgres.new_database())
    store.retraining.request("intent", "ops", "a")
    postgres.stop()
    try:
        for call in (
            lambda: store.retraining.request("intent", "ops", "b"),
            lambda: store.retraining.next("intent"),
            lambda: store.retraining.start("intent"),
            lambda: store.retraining.finish("intent", "released", "It won."),
            lambda: store.retraining.latest("intent"),
            lambda: store.retraining.recover("intent", LOCK),
        ):
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                call()
    finally:
        postgres.start()
    assert states(store) == ["requested"]
    store.close()
