"""The series of opinion monitoring: bounded, and there from the start."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from models.opinion.topics import MAX_SERIES
from serve.metrics import OpinionMetrics

LABELS = ("negative", "neutral", "positive")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_counts_by_topic_and_label(registry: CollectorRegistry) -> None:
    metrics = OpinionMetrics(["airlines", "banks"], LABELS, registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"flywheel_opinion_{name}", labels)

    assert value("texts_total", topic="banks", label="negative") == 0
    assert value("alert_active", topic="banks") == 0
    metrics.text(["airlines", "banks"], "negative")
    metrics.text(["airlines"], "negative")
    metrics.story(["airlines"], "negative")
    metrics.text(["what a client sent", "and another"], "neutral")
    assert value("texts_total", topic="airlines", label="negative") == 2
    assert value("texts_total", topic="banks", label="negative") == 1
    assert value("texts_total", topic="other", label="neutral") == 1
    assert value("stories_total", topic="airlines", label="negative") == 1
    metrics.active(["airlines", "what a client sent"])
    metrics.negative("airlines", 42, 3.5)
    metrics.negative("what a client sent", 1, 1)
    assert value("alert_active", topic="airlines") == 1
    assert value("alert_active", topic="other") == 1, "who watches the series alone is told of all alerts"
    assert value("observed_negative", topic="airlines") == 42
    assert value("expected_negative", topic="airlines") == 3.5
    metrics.active([])
    assert value("alert_active", topic="airlines") == value("alert_active", topic="other") == 0
    metrics.webhook("failed")
    assert value("webhook_total", outcome="failed") == 1
    assert value("webhook_total", outcome="sent") == 0
    assert b"what a client sent" not in generate_latest(registry)


def test_topics_are_bounded(registry: CollectorRegistry) -> None:
    metrics = OpinionMetrics([f"topic {number}" for number in range(1000)], LABELS, registry)
    metrics.text(["topic 0", "topic 999"], "negative")
    [texts] = [family for family in registry.collect() if family.name == "flywheel_opinion_texts"]
    counted = [sample for sample in texts.samples if sample.name.endswith("_total")]
    assert len(counted) == (MAX_SERIES + 1) * len(LABELS)  # and `other`
    assert {sample.labels["topic"] for sample in counted if sample.value} == {"topic 0", "other"}
