"""Erasure of one user's data: everywhere, down to the bytes, and for what still arrives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from models.feedback.store import Store
from models.feedback.store.feedback import Feedback
from models.feedback.types import LoggedPrediction, NewFeedback
from tests.helpers.store_fixtures import NOW, Clock, add, correction, made, newest, prediction


def test_everything_of_a_user_is_erased(store: Store) -> None:
    store.predictions.log([prediction(1, user="u"), prediction(2, user="v"), prediction(3, user="u", task="sentiment")])
    asked, given, _ = store.feedback.add(
        [correction(1, user="agent"), correction(2, user="u"), correction(2, user="v", source="user")], keep_days=30
    )
    assert asked.id is not None
    assert given.id is not None
    assert store.lineage.record("4", [asked.id, given.id]) == set()
    erasure = store.privacy.erase("u", actor="me", reason="ticket 12")
    assert (erasure.predictions, erasure.feedback, erasure.versions) == (2, 2, {"intent": ["4"]})
    assert [p.id for p in store.predictions.latest("intent", NOW, 9)] == [made(2)]
    assert [sample.user for sample in newest(store, "intent", 9)] == ["v"]
    assert add(store, correction(1)) == ["unknown_id"]
    [entry] = store.audit.entries("intent")
    assert (entry.action, entry.actor, entry.reason) == ("erase", "me", "ticket 12")
    assert entry.detail == {"predictions": 1, "feedback": 2, "versions": ["4"]}
    assert [entry.detail["predictions"] for entry in store.audit.entries("sentiment")] == [1]
    assert store.lineage.record("5", [asked.id]) == {asked.id}
    with store.database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM trained")).scalar() == 0
    again = store.privacy.erase("u")
    assert (again.predictions, again.feedback, again.versions) == (0, 0, {})


def test_a_prediction_that_names_nobody_is_of_who_gave_feedback_on_it(store: Store) -> None:
    store.predictions.log([prediction(1), prediction(2), prediction(3, user="v"), prediction(1, task="sentiment")])
    add(store, correction(1, user="u"), correction(1, source="desk"), correction(2, user="v"), correction(3, user="u"))
    add(store, correction(1, task="sentiment"))
    erasure = store.privacy.erase("u")
    assert (erasure.predictions, erasure.feedback) == (1, 3)
    assert sorted(p.id for p in store.predictions.latest("intent", NOW, 9)) == [made(2), made(3)]
    assert [sample.prediction_id for sample in newest(store, "intent", 9)] == [made(2)]
    assert len(store.predictions.latest("sentiment", NOW, 9)) == len(newest(store, "sentiment", 9)) == 1


def test_who_asked_and_whose_data_it_is_may_both_have_it_erased(store: Store) -> None:
    asked = [prediction(n, user="shop", subject=subject) for n, subject in enumerate(["ann", "bob", "bob"], 1)]
    store.predictions.log([*asked, prediction(4, user="bob"), prediction(5)])
    add(store, *(correction(n, user="desk") for n in (1, 2, 4)), correction(5, user="desk", subject="eve"))
    assert store.privacy.erase("bob").predictions == 3
    assert [p.id for p in store.predictions.latest("intent", NOW, 9)] == [made(5), made(1)]
    assert sorted(sample.prediction_id or "" for sample in newest(store, "intent", 9)) == [made(1), made(5)]
    assert (store.privacy.erase("shop").predictions, store.privacy.erase("eve").predictions) == (1, 1)
    assert newest(store, "intent", 9) == []


def test_the_same_text_of_two_people_from_one_agent_is_two_rows(store: Store) -> None:
    same = [correction(text="hello", user="agent", subject=subject) for subject in ("ann", "bob", "ann", None)]
    assert add(store, *same) == ["accepted", "accepted", "duplicate", "accepted"]
    assert store.privacy.erase("ann").feedback == 1
    assert len(newest(store, "intent", 9)) == 2


def test_all_hashes_of_a_user_are_erased_at_once(store: Store) -> None:
    store.predictions.log([prediction(1, user="present"), prediction(2, user="former"), prediction(3, user="v")])
    erasure = store.privacy.erase("present", "former", "never stored")
    assert erasure.predictions == 2
    assert len(store.audit.entries("intent")) == 1
    store.predictions.log([prediction(4, user="former")])
    assert [p.id for p in store.predictions.latest("intent", NOW, 9)] == [made(3)]


def test_what_was_still_in_a_buffer_is_refused(store: Store, clock: Clock) -> None:
    store.privacy.erase("u")
    store.predictions.log([prediction(1, user="u"), prediction(2, user="v"), prediction(3)])
    assert len(store.predictions.latest("intent", NOW, 9)) == 2
    store.predictions.log([prediction(5, user="v", subject="u")])
    assert len(store.predictions.latest("intent", NOW, 9)) == 2
    assert add(store, correction(text="mine", user="u"), correction(text="mine", user="v")) == ["erased", "accepted"]
    assert add(store, correction(text="theirs", user="v", subject="u")) == ["erased"]
    clock.pass_(days=1)
    store.predictions.log([prediction(4, user="u", at=clock.now)])
    assert add(store, correction(4, at=clock.now, user="u")) == ["accepted"]


@pytest.mark.parametrize(
    ("logged", "given", "outcome"),
    [
        pytest.param(prediction(1, user="u"), correction(1), "erased", id="of the text's user"),
        pytest.param(prediction(1, user="u", subject="v"), correction(1), "unknown_id", id="of who asked for another"),
        pytest.param(prediction(1), correction(1, user="w"), "unknown_id", id="of who claimed it"),
    ],
)
def test_an_erasure_between_join_and_insert(
    logged: LoggedPrediction, given: NewFeedback, outcome: str, url: str, clock: Clock
) -> None:
    class Slow(Feedback):
        def _join(self, items: Sequence[NewFeedback], keep_days: float):  # type: ignore[no-untyped-def]
            joined = super()._join(items, keep_days)
            other.privacy.erase("u")
            return joined

    other = Store.open(url, clock=clock)
    other.predictions.log([logged, prediction(2)])
    add(other, correction(1, user="u", source="themselves"))
    slow = Store(url, clock=clock)
    slow.feedback = Slow(slow.database)
    assert add(slow, given, correction(2)) == [outcome, "accepted"]
    assert [sample.prediction_id for sample in newest(other, "intent", 9)] == [made(2)]
    slow.close()
    other.close()


def test_a_byte_search_finds_nothing(tmp_path: Path, clock: Clock) -> None:
    """Rows of all lengths in a random order, changed, leased and expired: pages are split, joined, freed and filled."""
    chance = random.Random(4)
    store = Store.open(f"sqlite:///{tmp_path / 'feedback.db'}", clock=clock)
    secret = "wombat-7731"
    for round_ in range(40):
        rows, items = [], []
        for number in (chance.randrange(10**6) for _ in range(60)):
            word, user = (secret, "theirs") if number % 3 == 0 else ("nothing", f"user {number}")
            long = f"{word} " * chance.choice([1, 10, 100])
            id_ = made(number, NOW - timedelta(seconds=chance.randrange(10**6)))
            at = NOW - timedelta(days=chance.randrange(40))
            rows.append(prediction(number, long, id=id_, user=user, topic=word, at=at))
            items += [correction(None, label, prediction_id=id_, at=at) for label in (word, f"{word} again")]
            items.append(correction(text=f"{word} {number}", user=user, at=at))
        store.predictions.log(rows)
        assert set(add(store, *items)) >= {"accepted", "replaced"}
        store.queue.lease("intent", "me", chance.randint(1, 50), 60)
        store.predictions.expire(NOW - timedelta(days=40 - round_ // 2))
    assert any(secret.encode() in file.read_bytes() for file in tmp_path.iterdir())
    assert store.privacy.erase("theirs").feedback > 1000
    assert [file.name for file in tmp_path.iterdir() if secret.encode() in file.read_bytes()] == []
    assert store.feedback.counts("intent")["waiting"] > 1000
    store.close()
