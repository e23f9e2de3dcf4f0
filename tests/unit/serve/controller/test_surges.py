"""Alerts as the controller keeps them: found once, whatever order documents come in and whenever it is killed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from models.feedback.store import Store
from models.feedback.store.opinion_alerts import Alert
from models.feedback.types import NewDocument
from serve.config import OpinionConfig
from serve.controller import opinion, surges
from serve.controller.alert_outbox import AlertOutbox
from serve.controller.opinion import OpinionReconciler
from serve.controller.surges import SurgeReconciler
from serve.metrics import OpinionMetrics
from tests.helpers.opinion import absorb_all, new_document, send
from tests.helpers.store_fixtures import NOW

HOUR = timedelta(hours=1)
DAYS = 9
START = NOW - timedelta(days=DAYS)
SURGE = DAYS * 24 - 40  # the hour in which a surge of five hours begins
OPINION = OpinionConfig()


class Clock:
    def __init__(self, now: datetime):
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}", clock=clock)
    yield store
    store.close()


def texts_of(hour: int, negative: int, others: int, topic: str = "airlines") -> list[NewDocument]:
    """Stories of an hour, counted from START; another number is another story."""
    return [
        new_document(
            f"{topic} report {hour} with line {i} of the day",
            f"{topic}/{hour}/{i}",
            published=START + hour * HOUR + timedelta(minutes=i % 60),
            topics=(topic,),
            label="negative" if i < negative else "neutral",
        )
        for i in range(negative + others)
    ]


def stream(hours: range, surges: Sequence[int] = (SURGE,), topic: str = "airlines") -> list[NewDocument]:
    """A negative story in two hours and two others an hour; in the five hours of a surge 12 negative ones."""
    usual = [1 if hour % 2 else 0 for hour in hours]
    risen = [any(surge <= hour < surge + 5 for surge in surges) for hour in hours]
    return [
        text
        for hour, negative, is_risen in zip(hours, usual, risen, strict=True)
        for text in texts_of(hour, 12 if is_risen else negative, 2, topic)
    ]


@pytest.fixture(autouse=True)
def _steps_do_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is: otherwise a step ends after a second, and the next one goes on."""
    monkeypatch.setattr(opinion, "_STEP_S", 600.0)
    monkeypatch.setattr(surges, "_SECONDS", 600.0)


def step(store: Store, metrics: OpinionMetrics | None = None) -> None:
    """As a controller that was just started: it knows nothing but the store. On a busy machine a step ends early."""
    reconciler = OpinionReconciler(OPINION, store, evaluate=SurgeReconciler(OPINION, store, metrics).step)
    for _ in range(3):
        reconciler.step()


def found(store: Store, topic: str | None = None) -> list[tuple[str, int, int | None, float]]:
    """Topic, first hour, hour of its end and negative stories of each alert, oldest first."""

    def hour(alert: Alert) -> tuple[int, int | None]:
        ended = None if alert.ended is None else round((alert.ended - START) / HOUR)
        return round((alert.started - START) / HOUR), ended

    alerts = store.opinion_alerts.alerts("sentiment", topic)
    return [(alert.topic, *hour(alert), alert.observed) for alert in reversed(alerts)]


WHOLE = [("airlines", SURGE, SURGE + 6, 61.0)]  # the hour after it and its last one are above together


def test_a_surge_is_opened_grows_and_ends(store: Store) -> None:
    send(store, *stream(range(SURGE)))
    controller = SurgeReconciler(OPINION, store)
    counting = OpinionReconciler(OPINION, store, evaluate=controller.step)
    counting.step()
    assert found(store) == []
    seen = []
    for hour in range(SURGE, SURGE + 9):
        send(store, *stream(range(hour, hour + 1)))
        counting.step()
        seen += found(store)
    assert seen[0] == ("airlines", SURGE, None, 12.0)
    assert seen[3] == ("airlines", SURGE, None, 48.0)
    assert seen[-1] == WHOLE[0]
    (alert,) = store.opinion_alerts.alerts("sentiment")
    assert alert.examples == [f"airlines/{SURGE}/{i}" for i in range(5)]
    assert alert.expected < 10
    assert alert.score > 4


@pytest.mark.parametrize("size", [24, DAYS * 24])
def test_history_gives_the_same_alerts_whether_it_comes_by_the_day_or_at_once(store: Store, size: int) -> None:
    for first in range(0, DAYS * 24, size):
        send(store, *stream(range(first, first + size)))
        step(store)
    assert found(store) == WHOLE


def test_history_in_no_order_and_after_the_newest_documents_is_evaluated_in_its_own_time(store: Store) -> None:
    send(store, *stream(range(DAYS * 24 - 12, DAYS * 24)))
    step(store)
    texts = stream(range(DAYS * 24 - 12))
    random.Random(1).shuffle(texts)
    send(store, *texts)
    step(store)
    assert found(store) == WHOLE


def test_who_is_killed_before_it_evaluates_loses_no_alert_and_who_evaluates_again_repeats_none(store: Store) -> None:
    send(store, *stream(range(SURGE + 2)))
    absorb_all(store)  # and then it is killed
    step(store)
    assert found(store) == [("airlines", SURGE, None, 24.0)]
    changes = store.opinion.changes
    assert changes.pending("sentiment", int((START + (SURGE + 2) * HOUR).timestamp())) == []
    send(store, *stream(range(SURGE + 2, DAYS * 24)))
    absorb_all(store)
    kept = changes.pending("sentiment", int(NOW.timestamp()))
    SurgeReconciler(OPINION, store).step()
    send(store, new_document("another one", published=NOW))
    absorb_all(store)
    with store.database.engine.begin() as connection:  # killed before it has settled what it had evaluated
        changes.add_within(connection, "sentiment", {change.topic: change.since for change in kept}, 1)
    SurgeReconciler(OPINION, store).step()
    assert found(store) == WHOLE


def test_what_was_over_long_ago_is_not_sent(store: Store) -> None:
    outbox = AlertOutbox(OPINION, store)
    send(store, *stream(range(SURGE + 3)))
    step(store)
    assert outbox.pending() == []  # under way, but the newest document is of the day before yesterday
    send(store, *stream(range(SURGE + 3, DAYS * 24)))
    step(store)
    assert found(store) == WHOLE
    assert outbox.pending() == []
    assert store.opinion_alerts.pending("sentiment") == []


def test_what_is_new_is_sent_once(store: Store) -> None:
    outbox = AlertOutbox(OPINION, store)
    surge = DAYS * 24 - 10
    send(store, *stream(range(surge + 3), [surge]))
    step(store)
    (firing,) = outbox.pending()
    assert (firing.state, firing.topic, firing.observed, firing.ended) == ("firing", "airlines", 36, None)
    outbox.mark(firing.id, "firing")
    send(store, *stream(range(surge + 3, DAYS * 24), [surge]))
    step(store)
    step(store)
    (resolved,) = outbox.pending()
    assert (resolved.id, resolved.state, resolved.observed) == (firing.id, "resolved", 61)
    outbox.mark(firing.id, "resolved")
    assert outbox.pending() == []


def test_a_webhook_that_comes_later_is_not_told_of_what_was_over_before(store: Store, clock: Clock) -> None:
    clock.now = START + (SURGE + 12) * HOUR
    outbox = AlertOutbox(OPINION, store)
    send(store, *stream(range(SURGE + 12)))
    step(store)
    assert [alert.state for alert in outbox.pending()] == ["firing", "resolved"]
    clock.now = NOW + 24 * HOUR
    send(store, *texts_of((DAYS + 1) * 24 - 1, 0, 2))
    step(store)
    assert outbox.pending() == []
    assert found(store) == WHOLE


def test_a_surge_that_goes_on_after_its_end_was_sent_is_a_new_alert(store: Store, clock: Clock) -> None:
    clock.now = START + (SURGE + 9) * HOUR
    send(store, *stream(range(SURGE + 9)))
    step(store)
    (alert,) = store.opinion_alerts.alerts("sentiment")
    late = [text for hour in range(SURGE + 5, SURGE + 9) for text in texts_of(hour, 30, 0)]
    renamed = [new_document(f"late {text.document.text}", published=text.document.published) for text in late]
    store.opinion_alerts.mark(alert.id, 2)
    send(store, *renamed)
    step(store)
    step(store)
    assert [row[:3] for row in found(store)] == [WHOLE[0][:3], ("airlines", SURGE + 6, None)]


def test_history_that_makes_a_surge_usual_ends_its_alert(store: Store) -> None:
    send(store, *stream(range(SURGE + 3)))
    step(store)
    assert len(found(store)) == 1
    busy = [text for hour in range(SURGE) for text in texts_of(hour, 12, 2)[1:]]
    send(store, *(new_document(f"{t.document.text} again", published=t.document.published) for t in busy))
    step(store)
    ((topic, started, ended, _),) = found(store)
    assert (topic, started) == ("airlines", SURGE)
    assert ended is not None


def test_documents_of_the_future_are_evaluated_when_their_time_comes(store: Store, clock: Clock) -> None:
    clock.now = START + SURGE * HOUR - HOUR / 2
    send(store, *stream(range(SURGE + 3)))
    step(store)
    step(store)
    assert found(store) == []
    clock.now += 6 * HOUR
    send(store, *texts_of(SURGE + 3, 0, 1, "banks"))
    step(store)
    assert [row[:2] for row in found(store)] == [("airlines", SURGE)]


def test_topics_of_different_times_keep_their_own_alerts(store: Store) -> None:
    send(store, *stream(range(DAYS * 24)), *stream(range(DAYS * 24), [DAYS * 24 - 4], "banks"))
    send(store, *stream(range(DAYS * 24), [], "energy"))
    step(store)
    assert [row[:3] for row in found(store)] == [WHOLE[0][:3], ("banks", DAYS * 24 - 4, None)]


def test_metrics_show_the_newest_step(store: Store) -> None:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    metrics = OpinionMetrics(["airlines", "banks"], ["negative"], registry)

    def value(name: str, topic: str) -> float | None:
        return registry.get_sample_value(f"flywheel_opinion_{name}", {"topic": topic})

    send(store, *stream(range(SURGE + 2)))
    step(store, metrics)
    assert (value("alert_active", "airlines"), value("alert_active", "banks")) == (1, 0)
    assert value("observed_negative", "airlines") == 12
    assert 0 < (value("expected_negative", "airlines") or 0) < 2
    assert value("observed_negative", "banks") == 0
    send(store, *stream(range(SURGE + 2, DAYS * 24)))
    step(store, metrics)
    assert value("alert_active", "airlines") == 0


def test_with_nothing_new_nothing_is_read_but_what_is_pending(store: Store) -> None:
    send(store, *stream(range(SURGE + 2)))
    controller = SurgeReconciler(OPINION, store)
    counting = OpinionReconciler(OPINION, store, evaluate=controller.step)
    counting.step()
    from sqlalchemy import event

    statements: list[str] = []
    event.listen(store.database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    controller.step()
    assert len(statements) == 2, statements


def test_a_text_of_long_ago_costs_little_and_delays_no_other_topic(store: Store) -> None:
    send(store, *stream(range(SURGE + 2)), *stream(range(SURGE + 2), topic="banks"))
    long_ago = [
        new_document(f"from {years} years ago", published=NOW - years * timedelta(days=365), topics=("banks",))
        for years in (1, 50)
    ]
    send(store, *long_ago)
    began = time.process_time()
    step(store)
    assert time.process_time() - began < 5
    assert [row[:2] for row in found(store)] == [("airlines", SURGE), ("banks", SURGE)]
    assert store.opinion.changes.pending("sentiment", int((START + (SURGE + 2) * HOUR).timestamp())) == []
