"""Samples on their way out, locks and the audit log."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from models.feedback.store import Store
from tests.helpers.store_fixtures import NOW, Clock, add, correction, fill_queue, newest


def test_the_oldest_samples_are_leased_first(store: Store) -> None:
    assert store.feedback.oldest_waiting("intent") is None
    fill_queue(store, 5)
    assert store.feedback.oldest_waiting("intent") == NOW
    first = store.queue.lease("intent", "a", 2, 60)
    assert [sample.text for sample in first] == ["text 0", "text 1"]
    assert [sample.text for sample in store.queue.lease("intent", "b", 9, 60)] == ["text 2", "text 3", "text 4"]
    assert store.queue.lease("intent", "c", 9, 60) == []
    assert store.queue.lease("sentiment", "c", 9, 60) == []
    assert [sample.text for sample in newest(store, "intent", 2)] == ["text 4", "text 3"]


def test_an_expired_lease_goes_to_another(store: Store, clock: Clock) -> None:
    fill_queue(store, 2)
    first = store.queue.lease("intent", "a", 9, 60)
    clock.pass_(seconds=50)
    assert store.queue.renew("a", 60) == 2
    clock.pass_(seconds=50)
    assert store.queue.lease("intent", "b", 9, 60) == []
    clock.pass_(seconds=11)
    second = store.queue.lease("intent", "b", 9, 60)
    assert [sample.attempts for sample in first + second] == [0, 0, 0, 0]
    assert store.queue.settle("a", {sample.id: ("used", None) for sample in first}) == 0
    assert store.queue.renew("a", 60) == 0
    assert store.queue.give_back("a", reason="late", failed=[sample.id for sample in first]) == {
        "dead": 0,
        "waiting": 0,
    }
    assert store.queue.settle("b", {second[0].id: ("used", None), second[1].id: ("dropped", "near duplicate")}) == 2
    assert [sample.id for sample in store.feedback.used("intent")] == [second[0].id]
    assert store.queue.settle("b", {second[0].id: ("dead", "twice")}) == 0


def test_what_a_killed_run_held_is_counted_as_waiting(store: Store, clock: Clock) -> None:
    fill_queue(store, 3)
    assert len(store.queue.lease("intent", "killed", 2, 60)) == 2
    assert (store.feedback.counts("intent")["waiting"], store.feedback.counts("intent")["leased"]) == (1, 2)
    assert store.feedback.oldest_waiting("intent") == NOW + timedelta(minutes=2)
    clock.pass_(seconds=61)
    assert (store.feedback.counts("intent")["waiting"], store.feedback.counts("intent")["leased"]) == (3, 0)
    assert store.feedback.oldest_waiting("intent") == NOW
    assert sum(store.feedback.counts("sentiment").values()) == 0


def test_a_clock_that_was_ahead_holds_nothing_for_ever(store: Store, clock: Clock) -> None:
    """A machine that starts with a wrong time, and is set right while a run that was killed holds the corrections."""
    fill_queue(store, 3)
    clock.pass_(days=400)
    assert len(store.queue.lease("intent", "killed", 2, 60)) == 2
    assert store.locks.acquire("retrain intent", "killed", 60)
    assert store.locks.is_held("retrain intent")
    clock.pass_(days=-400)
    assert (store.feedback.counts("intent")["waiting"], store.feedback.counts("intent")["leased"]) == (3, 0)
    assert not store.locks.is_held("retrain intent")
    assert store.locks.acquire("retrain intent", "b", 60)
    assert len(store.queue.lease("intent", "b", 9, 60)) == 3


def test_what_failed_too_often_is_a_dead_letter(store: Store) -> None:
    fill_queue(store, 3)
    [first] = store.queue.lease("intent", "a", 1, 60)
    assert store.queue.give_back("a", reason="out of memory", failed=[first.id], max_attempts=2) == {
        "dead": 0,
        "waiting": 1,
    }
    leased = store.queue.lease("intent", "a", 3, 60)
    assert [sample.attempts for sample in leased] == [1, 0, 0]
    given = store.queue.give_back("a", reason="bad \x00 \ud800 byte", failed=[first.id, leased[1].id], max_attempts=2)
    assert given == {"dead": 1, "waiting": 2}
    [letter] = store.queue.dead_letters("intent")
    assert (letter.sample.text, letter.sample.attempts, letter.reason) == ("text 0", 2, "bad \ufffd \ufffd byte")
    assert [sample.text for sample in store.queue.lease("intent", "b", 9, 60)] == ["text 1", "text 2"]


def test_only_what_a_failed_attempt_was_made_with_pays_for_it(store: Store) -> None:
    fill_queue(store, 3)
    for _ in range(5):  # judged a candidate, were too few, or were in a run that was killed
        store.queue.lease("intent", "a", 3, 60)
        assert store.queue.give_back("a", reason="too few corrections for a run") == {"dead": 0, "waiting": 3}
    learned, judge, _ = store.queue.lease("intent", "a", 3, 60)
    store.queue.give_back("a", reason="refused", failed=[learned.id], max_attempts=3)
    assert [sample.attempts for sample in store.queue.lease("intent", "a", 3, 60)] == [1, 0, 0]
    assert store.queue.give_back("a", reason="refused", failed=[judge.id], max_attempts=1) == {"dead": 1, "waiting": 2}


def test_dead_letters_are_put_back_into_the_queue(store: Store) -> None:
    fill_queue(store, 2)
    ids = [sample.id for sample in store.queue.lease("intent", "a", 9, 60)]
    assert store.queue.give_back("a", reason="refused", failed=ids)["dead"] == 2
    assert store.queue.requeue("sentiment") == 0
    assert store.queue.requeue("intent") == 2
    assert store.queue.dead_letters("intent") == []
    assert [(s.text, s.attempts) for s in store.queue.lease("intent", "a", 9, 60)] == [("text 0", 0), ("text 1", 0)]


def test_what_a_version_that_serves_has_learned_is_used(store: Store) -> None:
    fill_queue(store, 5)
    first, second, third, _, fifth = store.queue.lease("intent", "killed", 9, 60)
    store.lineage.record("2", [first.id, second.id, fifth.id])
    store.lineage.record("3", [third.id])
    item = correction(text="text 4", at=fifth.at)
    assert add(store, replace(item, consent=False), item) == ["replaced", "replaced"]  # it may be another one now
    store.lineage.reconcile("sentiment", ["2"])
    assert store.feedback.used("intent") == []
    store.lineage.reconcile("intent", ["2", "1"])
    assert [sample.id for sample in store.feedback.used("intent")] == [second.id, first.id]
    assert (store.feedback.counts("intent")["leased"], store.feedback.counts("intent")["waiting"]) == (2, 1)
    assert store.feedback.used("intent", ["1", "3"]) == []


def test_what_only_a_version_learned_that_was_withdrawn_waits_again(store: Store) -> None:
    fill_queue(store, 3)
    ids = [sample.id for sample in store.queue.lease("intent", "a", 9, 60)]
    store.queue.settle("a", dict.fromkeys(ids, ("used", None)))
    store.lineage.record("2", ids[:2])
    store.lineage.record("3", ids[1:])
    assert [sample.id for sample in store.feedback.used("intent", ["1", "2"])] == [ids[1], ids[0]]
    store.lineage.reconcile("intent", ["1", "2"])
    assert store.feedback.counts("intent")["waiting"] == 1
    assert [sample.id for sample in store.feedback.used("intent")] == [ids[1], ids[0]]
    store.lineage.reconcile("intent", ["1"])
    assert [sample.id for sample in store.queue.lease("intent", "b", 9, 60)] == ids


def test_more_rows_than_one_statement_takes(store: Store) -> None:
    fill_queue(store, 1201)
    leased = store.queue.lease("intent", "a", 2000, 60)
    assert len({sample.id for sample in leased}) == 1201
    ids = [sample.id for sample in leased]
    assert store.queue.not_held("a", [*ids, 10**9]) == {10**9}
    assert store.queue.not_held("b", ids) == set(ids)
    assert store.lineage.record("2", [*ids, 10**9]) == {10**9}
    assert store.lineage.record("2", ids) == set()
    assert store.queue.settle("a", dict.fromkeys(ids, ("used", None))) == 1201
    assert len(store.feedback.used("intent", limit=7)) == 7
    items = [correction(text=f"text {i}") for i in range(1201)]
    assert set(add(store, *items)) == {"duplicate"}
    assert [len(add(store, *[correction(i) for i in range(1201)]))] == [1201]


def test_one_owner_of_a_lock(store: Store, clock: Clock) -> None:
    assert store.locks.acquire("retrain intent", "a", 60)
    assert store.locks.acquire("retrain sentiment", "b", 60)
    assert not store.locks.acquire("retrain intent", "b", 60)
    assert not store.locks.release("retrain intent", "b")
    clock.pass_(seconds=50)
    assert store.locks.acquire("retrain intent", "a", 60)
    clock.pass_(seconds=50)
    assert not store.locks.acquire("retrain intent", "b", 60)
    clock.pass_(seconds=11)
    assert store.locks.acquire("retrain intent", "b", 60)
    assert not store.locks.release("retrain intent", "a")
    assert store.locks.release("retrain intent", "b")
    assert store.locks.acquire("retrain intent", "a", 60)


def test_the_audit_log_is_newest_first(store: Store) -> None:
    for version in ("1", "2", "3"):
        store.audit.append("intent", "promote", version, "me", "won the gate", {"won": 3, "lost": [1]})
    store.audit.append("sentiment", "rollback", None, "flywheel", "errors")
    entries = store.audit.entries("intent", 2)
    assert [entry.version for entry in entries] == ["3", "2"]
    assert (entries[0].at, entries[0].actor, entries[0].reason, entries[0].detail) == (
        NOW, "me", "won the gate", {"won": 3, "lost": [1]},
    )  # fmt: skip
    assert store.audit.entries("sentiment")[0].detail == {}
