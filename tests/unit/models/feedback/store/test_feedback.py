"""Predictions and feedback on their way in."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import text

from models.feedback.store import Store, StoreUnavailable
from tests.helpers.store_fixtures import NOW, Clock, add, correction, made, newest, prediction


def test_feedback_is_joined_with_its_prediction(store: Store) -> None:
    store.predictions.log([prediction(1, "where is it", "cancel it", version="7", topic="orders", user="u")])
    [receipt] = store.feedback.add([correction(1, index=1, user="agent-3")], keep_days=30)
    assert receipt.outcome == "accepted"
    [sample] = store.queue.lease("intent", "me", 10, 60)
    assert sample.id == receipt.id
    assert (sample.text, sample.label, sample.predicted, sample.version) == ("cancel it", "cancel", "refund", "7")
    assert (sample.source, sample.user, sample.prediction_id, sample.at) == ("agent", "agent-3", made(1), NOW)


def test_an_item_is_joined_with_its_request(store: Store) -> None:
    request = {"user": {"history": ["a tent"]}, "candidates": [{"id": "m", "text": "mug"}, {"id": "c", "text": "cup"}]}
    answer = [{"id": "c", "score": 0.7}, {"id": "m", "score": 0.1}]
    store.predictions.log([prediction(1, task="recommendation", input=request, output=answer)])
    click = {"task": "recommendation", "label": None, "event": "click"}
    assert add(store, correction(1, **click, item_id="c"), correction(1, **click, item_id="x")) == [
        "accepted",
        "needs_index",
    ]
    [sample] = newest(store, "recommendation", 10)
    assert (sample.text, sample.label, sample.version) == ("cup", "click", "1")
    assert sample.extra == {"item_id": "c", "event": "click", "value": None, "input": request, "output": answer}
    assert add(store, correction(1, **click, item_id="c"), correction(1, **click | {"event": "buy"}, item_id="c")) == [
        "duplicate",
        "accepted",
    ]


def test_events_of_a_ranking_are_read_also_without_consent(store: Store) -> None:
    request = {"candidates": [{"id": "m", "text": "mug"}, {"id": "c", "text": "cup"}]}
    rows = [prediction(n, task="recommendation", input=request, output=[{"id": "c", "score": 0.7}]) for n in (1, 2, 3)]
    store.predictions.log([*rows, prediction(1)])
    given = {"task": "recommendation", "label": None}
    add(store, correction(1, **given, event="click", item_id="c"), correction(1, **given, event="buy", item_id="c"))
    add(store, correction(2, **given, event="view", item_id="m", consent=False), correction(1))
    add(store, correction(3, **given, event="click", item_id="m"))
    newest = [row.id for row in store.predictions.newest("recommendation")]
    assert newest == [made(3), made(2), made(1)]
    events = store.feedback.events("recommendation", newest[1:])
    assert {id_: sorted(found) for id_, found in events.items()} == {
        made(1): [("c", "buy", None), ("c", "click", None)],
        made(2): [("m", "view", None)],
    }
    [sample] = [
        sample for sample in store.queue.lease("recommendation", "me", 9, 60) if sample.prediction_id == made(3)
    ]
    store.queue.settle("me", {sample.id: ("quarantined", "it is odd")})
    assert store.feedback.events("recommendation", [made(3)]) == {}


def test_a_later_value_replaces_the_first_while_it_waits(store: Store) -> None:
    request = {"candidates": [{"id": "m", "text": "mug"}]}
    store.predictions.log([prediction(1, task="recommendation", input=request, output=[{"id": "m", "score": 0.7}])])

    def rated(value: float) -> list[str]:
        given = {"task": "recommendation", "label": None, "event": "rating", "item_id": "m"}
        return add(store, correction(1, **given, value=value))

    assert [rated(4.5), rated(4.5), rated(2.0)] == [["accepted"], ["duplicate"], ["replaced"]]
    assert store.feedback.events("recommendation", [made(1)]) == {made(1): [("m", "rating", 2.0)]}
    [sample] = store.queue.lease("recommendation", "me", 9, 60)
    assert (sample.label, sample.extra["value"]) == ("rating", 2.0)
    assert rated(5.0) == ["duplicate"]  # it is being learned
    assert store.feedback.counts("recommendation")["leased"] == 1


def test_more_predictions_than_are_read_at_once(store: Store) -> None:
    store.predictions.log([prediction(n) for n in range(1, 451)])
    assert [row.id for row in store.predictions.newest("intent")] == [made(n) for n in range(450, 0, -1)]
    assert list(store.predictions.newest("sentiment")) == []


def test_what_cannot_be_joined_says_why(store: Store, clock: Clock) -> None:
    store.predictions.log([prediction(1, "one", "two"), prediction(2)])
    long_ago = made(3, NOW - timedelta(days=31))
    assert add(
        store, correction(9), correction(prediction_id=long_ago), correction(prediction_id="chosen-by-a-client")
    ) == [
        "unknown_id",
        "stale_id",
        "unknown_id",
    ]
    assert (
        add(store, correction(1), correction(1, index=2), correction(1, index=-1), correction(2, index=1))
        == ["needs_index"] * 4
    )
    assert add(store, correction(1, task="sentiment")) == ["unknown_id"]
    with pytest.raises(ValueError, match="id or a text"):
        add(store, correction())
    assert sum(store.feedback.counts("intent").values()) == 0
    assert add(store) == []


def test_an_id_that_a_client_chose_is_joined(store: Store) -> None:
    names = ["42", "x" * 5000, "ü" * 3000, "3b241101-e2bb-4255-8caf-4136c566a962"]
    store.predictions.log([prediction(1, id=name) for name in names])
    assert add(store, *[correction(prediction_id=name) for name in names]) == ["accepted"] * 4
    assert add(store, correction(prediction_id="x" * 4999)) == ["unknown_id"]


def test_the_same_feedback_is_one_row(store: Store) -> None:
    store.predictions.log([prediction(1), prediction(2, "one", "two")])
    assert add(store, correction(1), correction(1, index=0)) == ["accepted", "duplicate"]
    assert add(store, correction(1), correction(1, source="user")) == ["duplicate", "accepted"]
    assert add(store, correction(2, index=0), correction(2, index=1)) == ["accepted", "accepted"]
    own = {"text": "Where is my  order?", "user": "u"}
    assert add(store, correction(**own), correction(**own | {"text": "where is my order? "})) == [
        "accepted",
        "duplicate",
    ]
    assert add(store, correction(**own, label="other"), correction(**own | {"user": "v"})) == ["accepted", "accepted"]
    assert store.feedback.counts("intent")["waiting"] == 7


def test_a_waiting_row_takes_the_new_label(store: Store) -> None:
    store.predictions.log([prediction(1), prediction(2)])
    assert add(store, correction(1, "a"), correction(1, "b"), correction(1, "b")) == [
        "accepted",
        "replaced",
        "duplicate",
    ]
    assert add(store, correction(1, "c")) == ["replaced"]
    assert [sample.label for sample in store.queue.lease("intent", "me", 10, 60)] == ["c"]
    assert add(store, correction(1, "d")) == ["duplicate"]
    [sample] = newest(store, "intent", 10)
    assert store.queue.settle("me", {sample.id: ("used", None)}) == 1
    assert add(store, correction(1, "d")) == ["duplicate"]
    assert [sample.label for sample in store.feedback.used("intent")] == ["c"]


def test_without_consent_the_text_is_not_kept(store: Store) -> None:
    store.predictions.log([prediction(1, "my secret"), prediction(2, "another secret")])
    assert add(store, correction(1, "refund", consent=False), correction(2, consent=False)) == ["accepted"] * 2
    assert store.feedback.counts("intent")["no_consent"] == 2
    assert store.queue.lease("intent", "me", 10, 60) == []
    assert store.feedback.live_accuracy("intent", NOW) == {"1": (1, 2)}
    assert add(store, correction(2, consent=True)) == ["replaced"]
    assert [sample.text for sample in newest(store, "intent", 10)] == ["another secret"]
    assert add(store, correction(2, consent=False)) == ["replaced"]
    with store.database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM feedback WHERE text IS NOT NULL")).scalar() == 0


def test_consent_is_taken_back_in_every_state(store: Store) -> None:
    store.predictions.log([prediction(n) for n in range(5)])
    add(store, *[correction(n) for n in range(5)])
    used, dropped, quarantined, dead, leased = store.queue.lease("intent", "me", 9, 60)
    assert store.lineage.record("2", [used.id]) == set()
    store.queue.settle(
        "me", {used.id: ("used", None), dropped.id: ("dropped", "a"), quarantined.id: ("quarantined", "b")}
    )
    store.queue.settle("me", {dead.id: ("dead", "c")})
    assert add(store, *[correction(n, consent=False) for n in range(5)]) == ["replaced"] * 5
    assert store.feedback.counts("intent")["no_consent"] == 5
    with store.database.read() as connection:
        left = "SELECT count(*) FROM feedback WHERE text IS NOT NULL OR owner IS NOT NULL OR leased_until IS NOT NULL"
        assert connection.execute(text(left)).scalar() == 0
    assert store.queue.not_held("me", [leased.id]) == {leased.id}
    assert store.lineage.record("3", [leased.id, used.id]) == {
        leased.id,
        used.id,
    }  # no version may learn them any more
    assert store.queue.give_back("me", reason="done") == {"dead": 0, "waiting": 0}
    assert store.feedback.used("intent") == []
    assert add(store, correction(4, consent=False)) == ["duplicate"]
    assert add(store, correction(4)) == ["replaced"]
    assert store.feedback.counts("intent")["waiting"] == 1


def test_what_a_killed_run_held_takes_a_new_label(store: Store, clock: Clock) -> None:
    store.predictions.log([prediction(1)])
    add(store, correction(1, "a"))
    assert len(store.queue.lease("intent", "killed", 9, 60)) == 1
    clock.pass_(seconds=61)
    assert add(store, correction(1, "a"), correction(1, "b")) == ["duplicate", "replaced"]
    assert store.queue.renew("killed", 60) == 0
    assert [sample.label for sample in store.queue.lease("intent", "me", 9, 60)] == ["b"]


def test_a_prediction_is_logged_once(store: Store) -> None:
    store.predictions.log([])
    store.predictions.log([prediction(1, "first"), prediction(2), prediction(2, "again")])
    store.predictions.log([prediction(1, "second"), prediction(3, at=NOW + timedelta(hours=1))])
    assert store.predictions.latest("intent", NOW, 1) == [prediction(3, at=NOW + timedelta(hours=1))]
    assert {p.id: p.input for p in store.predictions.latest("intent", NOW, 9)}[made(1)] == ["first"]
    assert store.predictions.latest("intent", NOW + timedelta(hours=2), 9) == []
    assert store.predictions.latest("sentiment", NOW, 9) == []


def test_an_answer_is_read_as_it_was_logged_but_for_what_a_database_cannot_keep(store: Store) -> None:
    away = NOW.astimezone(timezone(timedelta(hours=-7, minutes=30)))
    long = "x" * 300
    rows = [
        prediction(1, "a text", topic="orders", user="u"),
        prediction(2, "caf\u00e9 \ud800 \x00", topic="\ud800", user="\x00", version="1\x00", at=away),
        prediction(3, id=long, input={"a": {1: [None, True, 1.5]}}, output=[], at=NOW.replace(microsecond=7)),
    ]
    store.predictions.log(rows)
    digest = f"sha256:{hashlib.sha256(long.encode()).hexdigest()}"
    first, second, third = sorted(store.predictions.latest("intent", NOW, 9), key=lambda row: row.version + str(row.at))
    assert first == rows[0]
    assert third == replace(
        rows[1], input=["caf\u00e9 \ufffd \ufffd"], topic="\ufffd", user="\ufffd", version="1\ufffd", at=NOW
    )
    assert third.at.utcoffset() == timedelta(0)
    assert second == replace(rows[2], id=digest, input={"a": {"1": [None, True, 1.5]}})


def test_counts_and_live_accuracy(store: Store) -> None:
    store.predictions.log([prediction(i, version=str(i % 2)) for i in range(6)])
    labels = ["refund", "cancel", "refund", "refund", "cancel", "refund"]
    add(store, *[correction(i, label) for i, label in enumerate(labels)], correction(text="no prediction"))
    assert store.feedback.live_accuracy("intent", NOW) == {"0": (2, 3), "1": (2, 3)}
    assert store.feedback.live_accuracy("intent", NOW + timedelta(seconds=1)) == {}
    assert sum(total for _, total in store.feedback.live_accuracy("intent", NOW, 4).values()) == 4
    suspected = next(sample for sample in store.queue.lease("intent", "me", 10, 60) if sample.prediction_id == made(1))
    store.queue.settle("me", {suspected.id: ("quarantined", "suspected label error")})
    assert store.feedback.live_accuracy("intent", NOW) == {"0": (2, 3), "1": (2, 2)}
    assert store.feedback.counts("intent") == {
        "waiting": 0, "leased": 6, "used": 0, "quarantined": 1, "dropped": 0, "no_consent": 0, "dead": 0,
    }  # fmt: skip


def test_the_share_of_corrected_answers_is_of_answers_and_not_of_texts(store: Store) -> None:
    store.predictions.log([prediction(1, "a", "b"), *(prediction(i) for i in range(2, 9))])
    store.predictions.log([prediction(10, task="sentiment")])
    add(store, correction(1, "cancel", index=0), correction(1, "cancel", index=1), correction(2, "cancel"))
    add(store, correction(3, "refund"), correction(text="no prediction"))  # the first confirms what was predicted
    assert store.feedback.corrected_answers("intent", NOW, 100) == (2, 8)
    assert store.feedback.corrected_answers("intent", NOW, 4) == (2, 4)
    assert store.feedback.corrected_answers("intent", NOW + timedelta(seconds=1), 100) == (0, 0)


def test_each_transaction_is_observed_and_whether_the_store_failed(tmp_path: Path) -> None:
    observed: list[tuple[str, bool]] = []

    def observe(operation: str, seconds: float, failed: bool) -> None:
        assert 0 <= seconds < 10
        observed.append((operation, failed))

    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}", patience_s=0.1, observe=observe)
    store.predictions.log([prediction(1)])
    store.feedback.counts("intent")
    assert observed == [("write", False), ("read", False)]
    (tmp_path / "file").touch()
    away = Store(f"sqlite:///{tmp_path / 'file' / 'feedback.db'}", patience_s=0.1, observe=observe)
    for call in (lambda: away.feedback.counts("intent"), lambda: away.predictions.log([prediction(1)])):
        with pytest.raises(StoreUnavailable):
            call()
    assert observed[2:] == [("read", True), ("write", True)]


def test_old_predictions_expire(store: Store) -> None:
    old, new = NOW - timedelta(days=31), NOW - timedelta(days=1)
    store.predictions.log([prediction(i, id=made(i, old), at=old) for i in range(1500)])
    store.predictions.log([prediction(9999, at=new)])
    request = {"candidates": [{"id": "c", "text": "cup"}]}
    shown = [prediction(i, id=made(i, old), at=old, task="shop", input=request) for i in range(2)]
    store.predictions.log(shown)
    item = correction(None, None, prediction_id=shown[0].id, task="shop", item_id="c", event="click")
    assert add(store, item, correction(None, prediction_id=made(0, old))) == ["accepted", "accepted"]
    assert store.predictions.expire(NOW - timedelta(days=30)) == 1501
    assert [p.id for p in store.predictions.latest("intent", old, 9)] == [made(9999)]
    assert add(store, correction(None, prediction_id=made(1, old))) == ["stale_id"]
    assert newest(store, "intent", 1)[0].text == "text 0"
    [sample] = store.queue.lease("shop", "me", 9, 60)
    assert sample.extra["input"] == request
    store.queue.settle("me", {sample.id: ("used", None)})
    assert store.predictions.expire(NOW - timedelta(days=30)) == 1
    assert store.feedback.used("shop")[0].text == "cup"


HOSTILE = [
    "a\x00b",
    "\ud83d alone",
    "\ud83d\ude00 a pair",
    "😀",
    "'; DROP TABLE feedback; --",
    "%s %(x)s :y",
    "\\",
    "\u202e",
    "",
]


def test_hostile_strings(store: Store) -> None:
    store.predictions.log(
        [prediction(i, word, id=word, topic=word, user="u" + word, version=word) for i, word in enumerate(HOSTILE)]
    )
    logged = {p.id: p for p in store.predictions.latest("intent", NOW, 99)}
    assert set(logged) == {"a\ufffdb", "\ufffd alone", "😀 a pair", *HOSTILE[3:]}
    by_id = [correction(None, word, prediction_id=word, source=word, user=word) for word in HOSTILE]
    by_text = [correction(None, word, text=word, source=word, item_id=word, event=word) for word in HOSTILE]
    for items in (by_id, by_text):
        assert add(store, *items) == ["accepted"] * len(HOSTILE)
        assert add(store, *items) == ["duplicate"] * len(HOSTILE)
    assert {sample.label for sample in store.queue.lease("intent", "\x00", 99, 60)} == {*logged, ""} | {""}
    assert store.queue.settle("\x00", {}) == 0
    assert store.privacy.erase("ua\x00b").predictions == 1
    assert store.locks.acquire("\ud800", "\x00", 60)
    store.audit.append("intent", "promote", "\x00", "\ud800", "\x00", {"\ud800": ["\x00", {"a": "\udfff"}]})
    assert store.audit.entries("intent")[0].detail["\ufffd"][1] == {"a": "\ufffd"}
