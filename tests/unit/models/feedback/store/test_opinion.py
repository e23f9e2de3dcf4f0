"""Documents of opinion monitoring: each counts once, copies are one story, and every trend adds up."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from models.feedback.store import Store, opinion_stories
from models.feedback.store.opinion import ALL, COUNTS
from models.feedback.store.schema import opinion_bands
from models.feedback.store.schema import opinion_stories as stories_table
from models.opinion import stories
from models.opinion.stories import sketches
from models.opinion.types import Counts
from tests.helpers.opinion import absorb_all, documents, new_document, send
from tests.helpers.store_fixtures import NOW, Clock, add, correction, prediction

WINDOW = timedelta(hours=72)
NEWS = "Velmora profit up 4% in third quarter as cruise bookings recover"
HOUR = timedelta(hours=1)


def totals(store: Store, topic: str = ALL, start: datetime = NOW - timedelta(days=90), days: int = 100) -> Counts:
    """The sum of all counts of a topic, which must be the same by minutes and by quarters of an hour."""
    first = int(start.timestamp()) // 900 * 900
    by_step = [
        [row[1:] for row in store.opinion.sums("sentiment", topic, step_s, first, first + days * 86_400, 86_400)]
        for step_s in (60, 900)
    ]
    sums = [Counts(*map(sum, zip(*rows, strict=True))) if rows else Counts() for rows in by_step]
    assert sums[0] == sums[1]
    return sums[0]


def stories_at(store: Store, topic: str = ALL) -> dict[datetime, int]:
    """The minutes that have stories, with their number."""
    start = int((NOW - timedelta(days=30)).timestamp()) // 60 * 60
    rows = store.opinion.sums("sentiment", topic, 60, start, start + 60 * 86_400, 60)
    at = COUNTS.index("stories") + 1
    return {datetime.fromtimestamp(start + 60 * row[0], UTC): row[at] for row in rows if row[at]}


def test_a_document_counts_once_in_each_of_its_topics_and_in_all(store: Store) -> None:
    send(store, new_document(NEWS, topics=("cruises", "earnings"), label="positive"))
    (absorbed,) = absorb_all(store)
    assert [document.text for document in absorbed.counted] == [NEWS]
    once = Counts(texts=1, positive=1, stories=1, story_positive=1)
    assert [totals(store, topic) for topic in (ALL, "cruises", "earnings", "other")] == [once, once, once, Counts()]
    assert store.opinion.topics("sentiment") == ["cruises", "earnings"]
    assert store.opinion.next_batch("sentiment", 10) == []


def test_the_same_document_id_again_is_no_second_document(store: Store) -> None:
    send(store, new_document(NEWS, id_="wire-1"), new_document("another text", id_="wire-1"))
    absorb_all(store)
    send(store, new_document("a third text", id_="wire-1"), new_document("a text", id_="wire-2"))
    (absorbed,) = absorb_all(store)
    assert (len(absorbed.counted), absorbed.duplicates) == (1, 1)
    assert totals(store).texts == 2


def test_an_id_of_another_task_is_another_document(store: Store) -> None:
    send(store, new_document(NEWS, id_="1"), new_document(NEWS, id_="1", task="moods"))
    assert [len(store.opinion.absorb(task, store.opinion.next_batch(task, 9), WINDOW).counted)
            for task in ("sentiment", "moods")] == [1, 1]  # fmt: skip
    assert totals(store).stories == 1


def test_copies_are_one_story_with_the_label_of_the_first(store: Store) -> None:
    copies = [NEWS, f"UPDATE 1-{NEWS}", f"{NEWS} - Reuters", NEWS.upper()]
    labels = ["positive", "negative", "negative", "neutral"]
    send(
        store,
        *(
            new_document(text, published=NOW + i * HOUR, label=label)
            for i, (text, label) in enumerate(zip(copies, labels, strict=True))
        ),
        new_document(NEWS.replace("4%", "14%"), published=NOW, label="positive"),
    )
    absorb_all(store)
    assert totals(store) == Counts(5, 2, 1, 2, stories=2, story_positive=2)


@pytest.mark.parametrize(("hours", "stories"), [(72, 1), (72.1, 2)])
def test_a_copy_after_the_window_is_another_story(store: Store, hours: float, stories: int) -> None:
    for published in (NOW, NOW + timedelta(hours=hours)):
        send(store, new_document(NEWS, published=published))
        absorb_all(store)
    assert totals(store).stories == stories


@pytest.mark.parametrize("hours", [1, 71, 150])
def test_a_copy_from_before_the_first_takes_over_the_story(store: Store, hours: int) -> None:
    earlier = NOW - timedelta(hours=hours)
    for published, label in ((NOW, "negative"), (earlier, "positive")):
        send(store, new_document(NEWS, published=published, label=label))
        absorb_all(store)
    one_story = hours <= 72
    assert stories_at(store) == ({earlier: 1} if one_story else {earlier: 1, NOW: 1})
    assert totals(store) == Counts(2, 1, 0, 1, 1 if one_story else 2, 1, 0 if one_story else 1)
    send(store, new_document(NEWS, published=earlier - timedelta(hours=1), label="neutral"))  # found under its new time
    absorb_all(store)
    assert totals(store).stories == (1 if hours < 72 else 2)


def test_a_copy_finds_its_story_among_many_of_the_same_text(store: Store) -> None:
    for hours in (0, 1):  # each text comes every four days for half a year, and a copy of each an hour later
        send(
            store,
            *(new_document(NEWS, published=NOW + timedelta(days=-4 * i, hours=hours)) for i in range(45)),
        )
        absorb_all(store)
    assert totals(store, start=NOW - timedelta(days=200), days=210).stories == 45


def test_headlines_of_one_pattern_are_compared_with_few_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of a week that differ by a number only: most of their bands are the same."""
    monkeypatch.setattr(opinion_stories, "_MAX_IN_BAND", 5)
    compared = 0

    def is_copy(one: Any, other: Any) -> bool:
        nonlocal compared
        compared += 1
        return bool(stories.is_copy(one, other))

    monkeypatch.setattr(opinion_stories, "is_copy", is_copy)
    texts = [f"Director of Velmora sells {1000 + i} shares of the company on the open market" for i in range(60)]
    send(store, *(new_document(text) for text in texts))
    absorb_all(store, 20)
    assert compared < 60 * 15
    send(store, *(new_document(text.upper()) for text in texts))
    absorb_all(store, 20)
    assert totals(store).stories == 60


def test_copies_are_found_among_many_of_one_pattern(store: Store) -> None:
    texts = [f"Director of Velmora sells {1000 + i} shares of the company on the open market" for i in range(300)]
    send(store, *(new_document(text) for text in texts))
    send(store, *(new_document(f"{text}, filing shows on Friday") for text in texts))
    absorb_all(store)
    assert totals(store).stories < 300 + 0.25 * 300


def test_a_story_does_not_grow_beyond_the_window_however_its_copies_come(store: Store) -> None:
    for day in range(0, -10, -1):
        send(store, new_document(NEWS, published=NOW + timedelta(days=day)))
        absorb_all(store)
    assert totals(store).stories == 3  # 4, 4 and 2 days


def test_a_story_counts_once_in_a_topic_that_only_its_copy_has(store: Store) -> None:
    send(store, new_document(NEWS, topics=("cruises",), label="negative"))
    send(store, new_document(NEWS, topics=("travel",), label="negative", published=NOW + HOUR))
    absorb_all(store)
    one = Counts(1, 0, 0, 1, 1, 0, 1)
    assert [totals(store, topic) for topic in ("cruises", "travel")] == [one, one]
    assert totals(store) == Counts(2, 0, 0, 2, 1, 0, 1)
    assert stories_at(store, "travel") == {NOW + HOUR: 1}


def test_counts_do_not_depend_on_order_or_batches(store: Store) -> None:
    chance = random.Random(2)
    sent = documents(chance, 120)
    expected = Counter(item.document.label for item in sent)
    for limit in (7, 50):
        shuffled = [item for item in sent if chance.random() < 0.7] + sent  # some twice
        chance.shuffle(shuffled)
        send(store, *shuffled)
        absorb_all(store, limit)
        counts = totals(store)
        assert counts.texts == 120
        assert (counts.positive, counts.neutral, counts.negative) == tuple(
            expected[label] for label in ("positive", "neutral", "negative")
        )
        assert 0 < counts.stories < 120


def test_two_controllers_count_a_batch_once(store: Store, url: str) -> None:
    send(store, *(new_document(f"{NEWS} {i}") for i in range(20)))
    other = Store(url)
    both = (store, other)
    batches = [some.opinion.next_batch("sentiment", 15) for some in both]
    found = [
        some.opinion.absorb("sentiment", batch, WINDOW) for some, batch in zip((store, other), batches, strict=True)
    ]
    assert [len(absorbed.counted) for absorbed in found] == [15, 0]
    absorb_all(other)
    assert totals(store).texts == 20
    other.close()


def test_documents_come_with_their_predictions_or_alone(store: Store) -> None:
    store.predictions.log([prediction(1, NEWS)], [new_document(NEWS)])
    store.predictions.log([], [new_document("another", id_="2")])
    assert [item.document.text for item in store.opinion.next_batch("sentiment", 9)] == [NEWS, "another"]


def test_erasure_deletes_documents_and_keeps_counts(store: Store, clock: Clock) -> None:
    mine = {"user": "ann"}
    send(store, new_document(NEWS, id_="1", **mine), new_document(NEWS, id_="2"))
    absorb_all(store)
    send(store, new_document("still waiting", id_="3", **mine))
    assert store.privacy.erase("ann").documents == 2  # one of them waits
    assert store.audit.entries("sentiment")[0].detail["documents"] == 2
    assert store.opinion.next_batch("sentiment", 9) == []
    assert store.opinion.examples("sentiment", ALL, "negative", NOW - HOUR, NOW + HOUR, 9) == ["2"]
    assert totals(store).texts == 2
    send(store, new_document("sent before the erasure", id_="4", **mine))
    assert store.opinion.next_batch("sentiment", 9) == []
    clock.pass_(hours=1)
    send(store, new_document("sent after it", id_="5", at=clock(), **mine))
    assert len(store.opinion.next_batch("sentiment", 9)) == 1


def test_erasure_finds_the_documents_of_a_users_predictions(store: Store) -> None:
    row = prediction(1, NEWS, task="sentiment", user="ann")
    store.predictions.log([row], [new_document(NEWS, prediction_id=row.id)])
    absorb_all(store)
    assert store.privacy.erase("ann").documents == 1


@pytest.mark.parametrize("user", [None, "bob"])
def test_erasure_finds_documents_by_feedback_when_the_prediction_is_no_longer_logged(
    store: Store, user: str | None
) -> None:
    """As a user's predictions are: those without a user that they gave feedback on."""
    row = prediction(1, NEWS, task="sentiment", user=user)
    store.predictions.log([row], [new_document(NEWS, prediction_id=row.id, user=user)])
    absorb_all(store)
    assert add(store, correction(1, "positive", task="sentiment", index=0, user="ann")) == ["accepted"]
    store.predictions.expire(NOW + HOUR)
    assert store.privacy.erase("ann").documents == (1 if user is None else 0)


def test_erasure_leaves_no_hash_of_a_storys_words(store: Store) -> None:
    month = timedelta(hours=720)
    for days in (0, 20):
        send(store, new_document(NEWS, published=NOW - timedelta(days=days), user="ann"))
        store.opinion.absorb("sentiment", store.opinion.next_batch("sentiment", 9), month)
    assert totals(store).stories == 1
    store.privacy.erase("ann")
    with store.database.read() as connection:
        assert [connection.execute(select(table)).all() for table in (opinion_bands, stories_table)] == [[], []]


def test_examples_are_of_different_stories_and_of_the_topic(store: Store) -> None:
    send(
        store,
        new_document(NEWS, id_="a", topics=("cruises",)),
        new_document(f"{NEWS} | CNBC", id_="b", topics=("cruises",)),
        new_document("Orlanda Energy names chief executive", id_="c", topics=("cruises", "energy")),
        new_document("Kestrand Bank to buy rival Olvane", id_="d", topics=("banks",)),
        new_document("Gold hits two-week high as yields fall", id_="e", topics=("cruises",), label="positive"),
    )
    absorb_all(store)
    found = store.opinion.examples("sentiment", "cruises", "negative", NOW, NOW + HOUR, 9)
    assert found == ["a", "c"]
    assert store.opinion.examples("sentiment", "cruises", "negative", NOW, NOW + HOUR, 1) == ["a"]


def test_what_is_old_is_deleted_and_quarter_hours_stay(store: Store, clock: Clock) -> None:
    old = NOW - timedelta(days=40)
    send(store, new_document(NEWS, id_="old", published=old), new_document(NEWS, id_="new"))
    absorb_all(store)
    send(store, new_document("waiting", id_="w", published=old))
    keep = timedelta(days=30)
    assert sum(store.opinion.expire("sentiment", keep)) == 2  # the old minute, of its topic and of all
    absorb_all(store)
    old_stories = 2 * (1 + len(sketches([NEWS])[0].bands))
    assert sum(store.opinion.expire("sentiment", keep)) == 2 + old_stories  # the other old minutes
    day = int(old.timestamp()) // 86_400 * 86_400
    of_day = [store.opinion.sums("sentiment", ALL, step, day, day + 86_400, 86_400) for step in (60, 900)]
    assert [len(rows) for rows in of_day] == [0, 1]
    send(store, new_document(NEWS, id_="old", published=old))  # known, since documents stay by when they came
    assert absorb_all(store)[0].duplicates == 1
    clock.pass_(days=31)
    assert sum(store.opinion.expire("sentiment", keep)) > 3
    assert store.opinion.examples("sentiment", ALL, "negative", old, NOW + HOUR, 9) == []


def test_characters_that_a_database_refuses_are_replaced(store: Store) -> None:
    send(store, new_document("a\x00b \ud800", id_="x\x00y", topics=("t\x00",)))
    absorb_all(store)
    assert store.opinion.topics("sentiment") == ["t�"]
    send(store, new_document("again", id_="x\x00y"), new_document("no surrogate", id_="y\x00", topics=("t\x00",)))
    assert absorb_all(store)[0].duplicates == 1
    assert store.opinion.examples("sentiment", "t�", "negative", NOW, NOW + HOUR, 9) == ["x�y", "y�"]


def test_counts_of_the_last_days_by_topic(store: Store) -> None:
    for days in (0, 3, 20):
        send(store, new_document(f"{NEWS} {days}", id_=str(days), published=NOW - timedelta(days=days), topics=("a",)))
    absorb_all(store)
    since = [int((NOW - timedelta(days=days)).timestamp()) for days in (1, 7, 30)]
    assert [store.opinion.counts_since("sentiment", ["a", "b"], start)["a"].texts for start in since] == [1, 2, 3]
    assert store.opinion.newest("sentiment") == NOW
    assert store.opinion.newest("moods") is None


def test_what_changed_is_noted_until_it_is_settled(store: Store) -> None:
    changes, hour = store.opinion.changes, int(NOW.timestamp())
    send(store, new_document(NEWS, topics=("cruises",)))
    absorb_all(store)
    first = changes.pending("sentiment", hour + 1)
    assert [(change.topic, change.since) for change in first] == [(ALL, hour), ("cruises", hour)]
    assert changes.pending("sentiment", hour) == changes.pending("moods", hour + 1) == []
    send(store, new_document(f"UPDATE 1-{NEWS}", topics=("cruises", "earnings"), published=NOW - 2 * HOUR))
    absorb_all(store)
    changes.settle("sentiment", first, {})  # changed meanwhile
    second = changes.pending("sentiment", hour)
    assert [(change.topic, change.since) for change in second] == [
        (topic, hour - 7200) for topic in (ALL, "cruises", "earnings")
    ]
    changes.settle("sentiment", second, {"cruises": hour})
    (left,) = changes.pending("sentiment", hour + 1)
    assert (left.topic, left.since) == ("cruises", hour)
    found = changes.story_counts("sentiment", ["cruises", "earnings"], hour - 7200, hour + 3600, 3600)
    assert sorted(found) == [("cruises", 0, 1, 1, 1), ("cruises", 2, 1, 0, 0), ("earnings", 0, 1, 1, 1)]


def test_stories_that_are_new_in_a_topic_are_told(store: Store) -> None:
    send(store, new_document(NEWS, topics=("cruises",)), new_document(f"{NEWS}.", topics=("cruises",)))
    send(store, new_document(NEWS, topics=("cruises", "earnings"), label="neutral"))
    (absorbed,) = absorb_all(store)
    assert absorbed.begun == [(frozenset(["cruises"]), "negative"), (frozenset(["earnings"]), "neutral")]


def test_alerts_open_change_end_and_wait_for_the_webhook(store: Store) -> None:
    alerts = store.opinion_alerts
    values: dict[str, Any] = {"observed": 9.0, "expected": 2.0, "score": 5.5, "examples": ["a"]}
    id_ = alerts.open_alert("sentiment", "airlines", "negative_surge", NOW, **values)
    assert id_ is not None
    assert alerts.open_alert("sentiment", "airlines", "negative_surge", NOW, **values) is None
    assert alerts.revise(id_, None, **values | {"observed": 12.0})
    (alert,) = alerts.pending("sentiment")
    assert (alert.id, alert.observed, alert.ended, alert.notified) == (id_, 12.0, None, 0)
    alerts.mark(id_, 1)
    assert alerts.pending("sentiment") == []
    assert alerts.close_alert(id_, NOW + HOUR)
    assert not alerts.close_alert(id_, NOW + HOUR)
    assert alerts.revise(id_, NOW + 2 * HOUR, **values)  # its end was not sent yet
    assert alerts.revise(id_, NOW + HOUR, **values)
    assert [alert.id for alert in alerts.pending("sentiment")] == [id_]
    assert not alerts.skip(id_)
    alerts.mark(id_, 2)
    alerts.mark(id_, 1)
    assert not alerts.revise(id_, None, **values)
    assert alerts.pending("sentiment") == []
    later = alerts.open_alert("sentiment", "banks", "negative_surge", NOW + 2 * HOUR, **values)

    def ids(**conditions: Any) -> list[int]:
        return [alert.id for alert in alerts.alerts("sentiment", **conditions)]

    assert ids() == [later, id_]
    assert ids(topic="airlines") == ids(active=False) == [id_]
    assert ids(active=True) == ids(since=NOW + 2 * HOUR) == [later]
    assert ids(since=NOW) == [later, id_]
    assert later is not None
    assert alerts.skip(later)
    assert alerts.pending("sentiment") == []
    assert alerts.revise(later, None, **values)  # it goes on after all
    assert [alert.id for alert in alerts.pending("sentiment")] == [later]


def test_no_batch_is_nothing_to_do(store: Store) -> None:
    assert store.opinion.absorb("sentiment", [], WINDOW).counted == []
