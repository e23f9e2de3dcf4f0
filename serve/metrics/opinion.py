"""Opinion monitoring: texts and stories by topic, surges, and the webhook, in the process of the controller."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from models.opinion.topics import MAX_SERIES, OTHER
from serve.metrics.metric import Metric

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OUTCOMES = ("sent", "failed", "refused", "given_up")
_TOPIC = {"topic": f"one of the first {MAX_SERIES} names of the topics file, or `{OTHER}`"}
_LABELS = {**_TOPIC, "label": "a label of the task: positive, neutral, negative"}

TEXTS = Metric("flywheel_opinion_texts_total", "counter", "Texts, by topic and label.", _LABELS)
STORIES = Metric(
    "flywheel_opinion_stories_total",
    "counter",
    "Stories, by topic and the label of their first text: near copies count once.",
    _LABELS,
)
ACTIVE = Metric("flywheel_opinion_alert_active", "gauge", "1 while negative stories surge.", _TOPIC)
OBSERVED = Metric("flywheel_opinion_observed_negative", "gauge", "Negative stories of the newest step.", _TOPIC)
EXPECTED = Metric(
    "flywheel_opinion_expected_negative",
    "gauge",
    "Negative stories that the topic's baseline expects in the newest step.",
    _TOPIC,
)
WEBHOOK = Metric(
    "flywheel_opinion_webhook_total",
    "counter",
    "Messages of the webhook, by outcome.",
    {"outcome": "sent, failed, refused (an address that is not sent to), given_up"},
)
METRICS = (TEXTS, STORIES, ACTIVE, OBSERVED, EXPECTED, WEBHOOK)


class OpinionMetrics:
    """The collectors of opinion monitoring, in the process of the controller.

    The label `topic` has the first MAX_SERIES names of the topics file, and `other`, which is all the rest:
    what clients send makes no series. All series are there from the start, with 0, so that `increase` sees the first
    story. `registry` is for tests; the default is the process's.
    """

    def __init__(self, topics: Sequence[str], labels: Sequence[str], registry: CollectorRegistry | None = None):
        self._topics = dict.fromkeys([*topics[:MAX_SERIES], OTHER])
        self._texts = TEXTS.collector(registry)
        self._stories = STORIES.collector(registry)
        self._active = ACTIVE.collector(registry)
        self._observed = OBSERVED.collector(registry)
        self._expected = EXPECTED.collector(registry)
        self._webhook = WEBHOOK.collector(registry)
        for topic in self._topics:
            for label in labels:
                self._texts.labels(topic, label)
                self._stories.labels(topic, label)
            self._active.labels(topic)
        for outcome in OUTCOMES:
            self._webhook.labels(outcome)

    @property
    def topics(self) -> Collection[str]:
        """Those that have series of their own, and `other`."""
        return self._topics.keys()

    def text(self, topics: Collection[str], label: str) -> None:
        """Count a text in each of its topics; once as `other`, however many of them have no series."""
        for topic in self._named(topics):
            self._texts.labels(topic, label).inc()

    def story(self, topics: Collection[str], label: str) -> None:
        """Count a new story in each of its topics."""
        for topic in self._named(topics):
            self._stories.labels(topic, label).inc()

    def active(self, topics: Collection[str]) -> None:
        """Set the topics whose negative stories surge now; `other` if one without a series is among them."""
        surging = self._named(topics)
        for topic in self._topics:
            self._active.labels(topic).set(topic in surging)

    def negative(self, topic: str, observed: float, expected: float) -> None:
        """Set the newest step's negative stories, and how many were expected. Ignored for a topic without series."""
        if topic in self._topics:
            self._observed.labels(topic).set(observed)
            self._expected.labels(topic).set(expected)

    def webhook(self, outcome: str) -> None:
        self._webhook.labels(outcome).inc()

    def _named(self, topics: Collection[str]) -> set[str]:
        return {topic if topic in self._topics else OTHER for topic in topics}
