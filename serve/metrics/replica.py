"""What one replica counts: requests, their stages, batches, queue, cache, prediction log, and versions in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from serve.metrics.metric import NO_VERSION, TASK, VERSION, Metric, kept_versions
from serve.metrics.predictions import PredictionCounts
from serve.metrics.process import ProcessMetrics
from serve.metrics.store import StoreMetrics

if TYPE_CHECKING:
    from export.bundle import Stage

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
REFUSALS = (429, 503)
DROPPED = ("overloaded", "expired", "cancelled")
LOST = ("full", "failed")

_ENDPOINT = "predict, infer, feedback"
_REQUEST_VERSION = f"{VERSION}, or `{NO_VERSION}`: it was refused before one was chosen"

REQUESTS = Metric(
    "flywheel_requests_total",
    "counter",
    "Requests answered, refusals and errors included.",
    {"task": TASK, "version": _REQUEST_VERSION, "endpoint": _ENDPOINT, "code": "HTTP status; 499: the client had left"},
)
LATENCY = Metric(
    "flywheel_request_latency_seconds",
    "histogram",
    "Time from the request's headers to its response, before the response is sent. Without refusals (429, 503), which "
    "are fast.",
    {"task": TASK, "version": _REQUEST_VERSION, "endpoint": _ENDPOINT},
    LATENCY_BUCKETS,
)
STAGES = Metric(
    "flywheel_stage_seconds",
    "histogram",
    "Time of one stage: tokenize and decode of a request, queue and infer of a batch (queue: of its oldest text).",
    {"task": TASK, "version": VERSION, "stage": "queue, tokenize, infer, decode"},
    LATENCY_BUCKETS,
)
TEXTS = Metric(
    "flywheel_texts_total",
    "counter",
    "Texts answered, by the last reader: linear (answered early) or encoder, whose output may be cached.",
    {"task": TASK, "version": VERSION, "stage": "linear, encoder"},
)
BATCHES = Metric(
    "flywheel_batch_size",
    "histogram",
    "Texts in one run of the model.",
    {"task": TASK, "version": VERSION},
    BATCH_BUCKETS,
)
TOKENS = Metric(
    "flywheel_batch_tokens_total",
    "counter",
    "Tokens of the batches: of their texts, and those that fill all texts of a batch up to its longest. A graph that "
    "skips padding does not compute the latter.",
    {"task": TASK, "version": VERSION, "kind": "text, padding"},
)
WAITING = Metric("flywheel_waiting_texts", "gauge", "Texts waiting for the model now.", {"task": TASK})
BACKLOG = Metric(
    "flywheel_backlog_seconds",
    "gauge",
    "Queued work in seconds of model time, in the replica with the most.",
    {"task": TASK},
    (),
    "max",
)
OLDEST = Metric(
    "flywheel_oldest_waiting_seconds",
    "gauge",
    "Age of the text that has waited longest for the model, in the replica where it is the oldest.",
    {"task": TASK},
    (),
    "max",
)
DROPPED_TEXTS = Metric(
    "flywheel_dropped_texts_total",
    "counter",
    "Texts that never reached the model, by reason. A request that HAProxy refused counts as one.",
    {"task": TASK, "reason": "overloaded (shed), expired (its deadline passed), cancelled (the client disconnected)"},
)
CACHE = Metric(
    "flywheel_cache_texts_total",
    "counter",
    "Texts by the source of their output: cached (hit), in flight (joined), or the model (miss).",
    {"task": TASK, "version": VERSION, "result": "hit, joined, miss"},
)
UNLOGGED = Metric(
    "flywheel_unlogged_predictions_total",
    "counter",
    "Predictions missing in the prediction log, by reason.",
    {"task": TASK, "reason": "full (the buffer, while the store is away), failed"},
)
LOG_LAG = Metric(
    "flywheel_prediction_log_lag_seconds",
    "gauge",
    "Age of the oldest prediction that is not in the store yet, over all replicas; 0 when none waits.",
    {"task": TASK},
    (),
    "max",
)
UNCOUNTED = Metric(
    "flywheel_uncounted_documents_total",
    "counter",
    "Texts missing in opinion monitoring, by reason.",
    {"task": TASK, "reason": "full (the buffer, while the store is away), failed"},
)
FEEDBACK = Metric(
    "flywheel_feedback_total",
    "counter",
    "Corrections received, by result.",
    {"task": TASK, "status": "accepted, duplicate, replaced, or the code of the error"},
)
SHADOW = Metric(
    "flywheel_shadow_texts_total",
    "counter",
    "Predictions of a challenger in shadow against the champion's.",
    {"task": TASK, "version": VERSION, "result": "agree, differ, busy (not compared), failed"},
)
LOADED = Metric(
    "flywheel_loaded_replicas", "gauge", "Replicas that have the version in memory.", {"task": TASK, "version": VERSION}
)
MODEL = Metric(
    "flywheel_model_info",
    "gauge",
    "1 for each version in memory.",
    {
        "task": TASK,
        "version": VERSION,
        "provider": "execution provider of onnxruntime, or numpy",
        "precision": "of the encoder's weights: fp32, int8, ...",
        "exported": "when the bundle was made",
    },
    (),
    "max",
)
STARTS = Metric("flywheel_replica_starts_total", "counter", "Replica processes that started.", {"task": TASK})
METRICS = (
    REQUESTS, LATENCY, STAGES, TEXTS, BATCHES, TOKENS, WAITING, BACKLOG, OLDEST, DROPPED_TEXTS, CACHE, UNLOGGED,
    LOG_LAG, UNCOUNTED, FEEDBACK, SHADOW, LOADED, MODEL, STARTS,
)  # fmt: skip


class ModelInfo(NamedTuple):
    """The labels of `flywheel_model_info` that a version has."""

    provider: str
    precision: str
    exported: str


class Metrics:
    """The collectors of one replica. Build it once per process, and call it on the event loop."""

    def __init__(self, task: str):
        self._task = task
        self._collectors = {metric: metric.collector() for metric in METRICS}
        self._children: dict[tuple[Any, ...], Any] = {}
        self._loaded: Collection[str] = ()
        self._known: set[str] = set()
        self._predictions = PredictionCounts(task)
        self.store = StoreMetrics()
        ProcessMetrics(task)
        for reason in DROPPED:  # `increase` does not see the first count of a series that begins with it
            self._child(DROPPED_TEXTS, reason)
        self._begin_errors(NO_VERSION)
        for reason in LOST:
            self._child(UNLOGGED, reason)
            self._child(UNCOUNTED, reason)
        self._child(STARTS).inc()

    def _child(self, metric: Metric, *labels: str) -> Any:
        """`collector.labels(...)`, cached, since it takes a lock and builds a key from strings."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._collectors[metric].labels(self._task, *labels)
        return child

    def request(self, version: str, endpoint: str, status: int, seconds: float) -> None:
        self._child(REQUESTS, version, endpoint, str(status)).inc()
        if status not in REFUSALS:
            self._child(LATENCY, version, endpoint).observe(seconds)

    def refused(self, predicts: int, infers: int) -> None:
        """Count requests that HAProxy refused for this replica. Their numbers of texts are unknown."""
        for endpoint, count in (("predict", predicts), ("infer", infers)):
            if count:
                self._child(REQUESTS, NO_VERSION, endpoint, "503").inc(count)
        self.dropped("overloaded", predicts + infers)

    def batch(self, version: str, lengths: Sequence[int], seconds: float) -> None:
        """Count one run of the model over texts of these lengths in tokens."""
        size, tokens = len(lengths), sum(lengths)
        self._child(BATCHES, version).observe(size)
        self._child(STAGES, version, "infer").observe(seconds)
        self._child(TOKENS, version, "text").inc(tokens)
        self._child(TOKENS, version, "padding").inc(size * max(lengths) - tokens)

    def texts(self, version: str, stage: Stage, texts: int) -> None:
        if texts:
            self._child(TEXTS, version, stage).inc(texts)

    def stage(self, version: str, stage: str, seconds: float) -> None:
        self._child(STAGES, version, stage).observe(seconds)

    def cache(self, version: str, hits: int, joined: int, misses: int) -> None:
        for result, count in (("hit", hits), ("joined", joined), ("miss", misses)):
            if count:
                self._child(CACHE, version, result).inc(count)

    def dropped(self, reason: str, texts: int = 1) -> None:
        self._child(DROPPED_TEXTS, reason).inc(texts)

    def predictions(self, version: str, labels: Sequence[str], predictions: Sequence[Mapping[str, Any]]) -> None:
        """Count what was answered. `labels` are the version's, none for a ranker."""
        self._predictions.count(version, labels, predictions)

    def unlogged(self, reason: str, answers: int = 1) -> None:
        self._child(UNLOGGED, reason).inc(answers)

    def uncounted(self, reason: str, texts: int) -> None:
        self._child(UNCOUNTED, reason).inc(texts)

    def log_lag(self, seconds: Callable[[], float]) -> None:
        """Call `seconds` at each scrape, in another thread, for the age of the oldest prediction not yet stored."""
        self._child(LOG_LAG).set_function(seconds)

    def feedback(self, status: str) -> None:
        self._child(FEEDBACK, status).inc()

    def shadow(self, version: str, result: str, texts: int = 1) -> None:
        self._child(SHADOW, version, result).inc(texts)

    def loaded(self, versions: Mapping[str, ModelInfo]) -> None:
        """Set the versions that this replica has in memory. Of others, only the newest keep their series."""
        for version in set(self._loaded) | versions.keys():
            self._child(LOADED, version).set(version in versions)
        for version in set(self._loaded) - versions.keys():
            self._remove(MODEL, version)
        for version, info in versions.items():
            self._child(MODEL, version, *info).set(1)
            self._begin_errors(version)
        self._loaded = tuple(versions)
        self._known.update(versions)
        for version in self._known - kept_versions(self._known, versions):
            self._known.discard(version)
            self._predictions.forget(version)
            for metric in METRICS:
                if "version" in metric.labels:
                    self._remove(metric, version)

    def _begin_errors(self, version: str) -> None:
        """The errors that the availability objective counts, with 0, so that `increase` sees the first of them."""
        for endpoint, code in product(("predict", "infer"), ("500", "503", "504")):
            self._child(REQUESTS, version, endpoint, code)

    def waiting(self, texts: int, seconds: float, oldest: float) -> None:
        """Set the texts in the queue, their work in seconds of model time, and the age of the oldest in seconds."""
        self._child(WAITING).set(texts)
        self._child(BACKLOG).set(seconds)
        self._child(OLDEST).set(oldest)

    def _remove(self, metric: Metric, version: str) -> None:
        """Remove the series of a version, which is the label behind `task`."""
        for key in [key for key in self._children if key[:2] == (metric, version)]:
            del self._children[key]
            self._collectors[metric].remove(self._task, *key[1:])
