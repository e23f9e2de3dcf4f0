"""How the log and the labels are read for the review list."""

from __future__ import annotations

from datetime import timedelta

from models.feedback.store import Store
from models.feedback.store.label_join import key_of_text
from models.feedback.store.predictions import _READ_AT_ONCE
from tests.helpers.store_fixtures import NOW, Clock, correction, made, prediction


def test_a_log_is_read_by_time_over_pages_and_ties(store: Store) -> None:
    count = 2 * _READ_AT_ONCE + 50
    rows = [prediction(n, at=NOW - timedelta(seconds=n // 300)) for n in range(count)]
    store.predictions.log([*rows, prediction(9999, task="sentiment")])
    found = list(store.predictions.by_time("intent"))
    assert sorted(row.id for row in found) == sorted(row.id for row in rows)
    assert [row.at for row in found] == sorted((row.at for row in rows), reverse=True)
    assert list(store.predictions.by_time("nothing")) == []


def test_which_predictions_are_logged(store: Store) -> None:
    store.predictions.log([prediction(1), prediction(2, task="sentiment")])
    assert store.predictions.logged("intent", [made(1), made(2), "no such id"]) == {made(1)}
    assert store.predictions.logged("intent", []) == set()


def test_labels_are_read_newest_first_also_without_consent(store: Store, clock: Clock) -> None:
    store.predictions.log([prediction(1, "one", "two")])
    items = [
        correction(1, "cancel", index=1, at=NOW),
        correction(1, "refund", index=0, consent=False, at=NOW + timedelta(seconds=1)),
        correction(None, "track", text="where", at=NOW + timedelta(seconds=2)),
    ]
    store.feedback.add(items, keep_days=30)
    found = store.feedback.labels("intent", 10)
    assert [(row.label, row.text, row.prediction_id, row.trusted) for row in found] == [
        ("track", "where", None, True),
        ("refund", None, made(1), True),
        ("cancel", "two", made(1), True),
    ]
    assert [row.key for row in found[1:]] == [key_of_text("intent", made(1), index, "agent") for index in (0, 1)]
    assert [row.label for row in store.feedback.labels("intent", 1)] == ["track"]
    assert len(store.feedback.labels("intent", 10, since=NOW + timedelta(seconds=1))) == 2
    assert store.feedback.labels("sentiment", 10) == []
