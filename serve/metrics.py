"""All Prometheus collectors of the server.

Replicas are processes: each counts in its own memory, and the control application asks them all for `GET /metrics`
(metric_sockets.py).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.feedback.types import FeedbackState
from models.opinion.topics import MAX_SERIES, OTHER
from serve import metric_sockets

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from export.bundle import Stage

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


def process_registry() -> CollectorRegistry:
    """The registry of this process's collectors. Call it before any other module imports prometheus-client."""
    # With one of these set, as another program may have left it, prometheus-client would count in memory-mapped files:
    # a full disk then kills the process with SIGBUS. It reads them when it is first imported.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    from prometheus_client import REGISTRY

    return REGISTRY


class Metrics:
    """The collectors of one replica. Build it once per process."""

    def __init__(self, task: str):
        process_registry()
        from prometheus_client import Counter, Gauge, Histogram

        self._task = task
        self._requests = Counter("flywheel_requests", "Requests answered.", ["task", "version", "endpoint", "status"])
        self._latency = Histogram(
            "flywheel_request_latency_seconds",
            "Time from the request's headers to its response, before the response is sent.",
            ["task", "version", "endpoint"],
            buckets=LATENCY_BUCKETS,
        )
        self._texts = Counter(
            "flywheel_texts",
            "Texts answered, by the last reader: linear (answered early) or encoder, whose output may be cached.",
            ["task", "version", "stage"],
        )
        self._batch = Histogram(
            "flywheel_batch_size", "Texts in one run of the model.", ["task", "version"], buckets=BATCH_BUCKETS
        )
        self._stage = Histogram(
            "flywheel_stage_seconds",
            "Time of one stage: queue and tokenize for a request, infer for a batch.",
            ["task", "version", "stage"],
            buckets=LATENCY_BUCKETS,
        )
        self._dropped = Counter(
            "flywheel_dropped_texts",
            "Texts that never reached the model, by reason. A request that HAProxy refused counts as one.",
            ["task", "reason"],
        )
        self._cache = Counter(
            "flywheel_cache_texts",
            "Texts by the source of their output: cached (hit), in flight (joined), or the model (miss).",
            ["task", "version", "result"],
        )
        self._unlogged = Counter(
            "flywheel_unlogged_predictions", "Predictions missing in the prediction log, by reason.", ["task", "reason"]
        )
        self._uncounted = Counter(
            "flywheel_uncounted_documents", "Texts missing in opinion monitoring, by reason.", ["task", "reason"]
        )
        self._feedback = Counter("flywheel_feedback", "Corrections received, by result.", ["task", "status"])
        self._shadow = Counter(
            "flywheel_shadow_texts",
            "Predictions of a challenger in shadow against the champion's: agree, differ, or none (busy, failed).",
            ["task", "version", "result"],
        )
        self._loaded = Gauge(
            "flywheel_loaded_replicas", "Replicas that have the version in memory.", ["task", "version"]
        )
        self._waiting = Gauge("flywheel_waiting_texts", "Texts waiting for the model now.", ["task"]).labels(task)
        self._backlog = Gauge(
            "flywheel_backlog_seconds", "Queued work in seconds of model time, in the replica with the most.", ["task"]
        ).labels(task)
        self._children: dict[tuple[Any, ...], Any] = {}
        self._loaded_versions: set[str] = set()

    def _child(self, collector: Any, *labels: str) -> Any:
        """`collector.labels(...)`, cached, since it takes a lock and builds a key from strings."""
        key = (collector, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = collector.labels(self._task, *labels)
        return child

    def request(self, version: str, endpoint: str, status: int, seconds: float) -> None:
        self._child(self._requests, version, endpoint, str(status)).inc()
        self._child(self._latency, version, endpoint).observe(seconds)

    def refused(self, predicts: int, infers: int) -> None:
        """Count requests that HAProxy refused for this replica. Their numbers of texts are unknown."""
        for endpoint, count in (("predict", predicts), ("infer", infers)):
            if count:
                self._child(self._requests, "none", endpoint, "503").inc(count)
        self.dropped("overloaded", predicts + infers)

    def batch(self, version: str, size: int, seconds: float) -> None:
        self._child(self._batch, version).observe(size)
        self._child(self._stage, version, "infer").observe(seconds)

    def texts(self, version: str, stage: Stage, texts: int) -> None:
        if texts:
            self._child(self._texts, version, stage).inc(texts)

    def stage(self, version: str, stage: str, seconds: float) -> None:
        self._child(self._stage, version, stage).observe(seconds)

    def cache(self, version: str, hits: int, joined: int, misses: int) -> None:
        for result, count in (("hit", hits), ("joined", joined), ("miss", misses)):
            if count:
                self._child(self._cache, version, result).inc(count)

    def dropped(self, reason: str, texts: int = 1) -> None:
        self._child(self._dropped, reason).inc(texts)

    def unlogged(self, reason: str, answers: int = 1) -> None:
        self._child(self._unlogged, reason).inc(answers)

    def uncounted(self, reason: str, texts: int) -> None:
        self._child(self._uncounted, reason).inc(texts)

    def feedback(self, status: str) -> None:
        self._child(self._feedback, status).inc()

    def shadow(self, version: str, result: str, texts: int = 1) -> None:
        self._child(self._shadow, version, result).inc(texts)

    def loaded(self, versions: Collection[str]) -> None:
        """Set the versions that this replica has in memory."""
        for version in self._loaded_versions.union(versions):
            self._child(self._loaded, version).set(version in versions)
        self._loaded_versions = set(versions)

    def waiting(self, texts: int, seconds: float) -> None:
        self._waiting.set(texts)
        self._backlog.set(seconds)


class LoopMetrics:
    """The collectors of the server's controller loop. `registry` is for tests; the default is the process's."""

    def __init__(self, registry: CollectorRegistry | None = None):
        registry = registry or process_registry()
        from prometheus_client import Counter, Gauge

        self._retrains = Counter(
            "flywheel_retrainings", "Retrainings, by outcome.", ["task", "outcome"], registry=registry
        )
        self._moves = Counter(
            "flywheel_moves",
            "Versions that the controller promoted, made a canary, or rolled back.",
            ["task", "step"],
            registry=registry,
        )
        self._corrections = Gauge(
            "flywheel_corrections",
            "Corrections in the store, by state.",
            ["task", "state"],
            registry=registry,
        )

    def retraining(self, task: str, outcome: str) -> None:
        self._retrains.labels(task, outcome).inc()

    def move(self, task: str, step: str) -> None:
        self._moves.labels(task, step).inc()

    def corrections(self, task: str, counts: Mapping[FeedbackState, int]) -> None:
        for state, count in counts.items():
            self._corrections.labels(task, state).set(count)


class OpinionMetrics:
    """The collectors of opinion monitoring, in the process of the controller.

    The label `topic` has the first MAX_SERIES names of the topics file, and `other`, which is all the rest:
    what clients send makes no series. All series are there from the start, with 0, so that `increase` sees the first
    story. `registry` is for tests; the default is the process's.
    """

    def __init__(self, topics: Sequence[str], labels: Sequence[str], registry: CollectorRegistry | None = None):
        registry = registry or process_registry()
        from prometheus_client import Counter, Gauge

        self._topics = dict.fromkeys([*topics[:MAX_SERIES], OTHER])
        self._texts = Counter(
            "flywheel_opinion_texts", "Texts, by topic and label.", ["topic", "label"], registry=registry
        )
        self._stories = Counter(
            "flywheel_opinion_stories",
            "Stories, by topic and the label of their first text: near copies count once.",
            ["topic", "label"],
            registry=registry,
        )
        self._active = Gauge(
            "flywheel_opinion_alert_active", "1 while negative stories surge.", ["topic"], registry=registry
        )
        self._observed = Gauge(
            "flywheel_opinion_observed_negative", "Negative stories of the newest step.", ["topic"], registry=registry
        )
        self._expected = Gauge(
            "flywheel_opinion_expected_negative",
            "Negative stories that the topic's baseline expects in the newest step.",
            ["topic"],
            registry=registry,
        )
        self._webhook = Counter(
            "flywheel_opinion_webhook",
            "Messages of the webhook, by outcome: sent, failed, refused (an address that is not sent to), given_up.",
            ["outcome"],
            registry=registry,
        )
        for topic in self._topics:
            for label in labels:
                self._texts.labels(topic, label)
                self._stories.labels(topic, label)
            self._active.labels(topic)
        for outcome in ("sent", "failed", "refused", "given_up"):
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


class _Server:
    """The processes whose metrics this one collects besides its own; none until `collect_from`."""

    processes: metric_sockets.Processes | None = None


def serve_metrics(folder: Path) -> None:
    """Let the control application collect this process's metrics, over a socket in `folder`."""
    metric_sockets.serve(folder, process_registry())


def collect_from(folder: Path) -> None:
    """Collect the metrics of all processes that call `serve_metrics` with this folder, besides this process's own."""
    _Server.processes = metric_sockets.Processes(folder)


def collect() -> list[Metric]:
    """The metric families of all processes on this machine, without gauges of dead processes."""
    others = _Server.processes.snapshots() if _Server.processes is not None else []
    return metric_sockets.merged([*others, metric_sockets.snapshot(process_registry())])


def keep_counts() -> None:
    """Ask all processes once: what one has counted by now stays in `collect` after its end."""
    if _Server.processes is not None:
        _Server.processes.snapshots()


def loaded_replicas() -> dict[tuple[str, str], float]:
    """The number of replicas on this machine with each (task, version) in memory."""
    samples = (sample for family in collect() for sample in family.samples if family.name == "flywheel_loaded_replicas")
    return {(sample.labels["task"], sample.labels["version"]): sample.value for sample in samples}


def exposition(accept: str = "") -> tuple[bytes, str]:
    """`collect` in the format of Prometheus that the Accept header asks for, and its content type."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry()
    registry.register(metric_sockets.Collected(collect()))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
