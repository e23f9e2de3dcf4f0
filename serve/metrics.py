"""All Prometheus collectors of the server.

Replicas are processes, so the collectors use prometheus-client's multiprocess mode: each process writes memory-mapped
files under `home/metrics`, and the control application sums them for `GET /metrics`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.feedback.types import FeedbackState
from models.home import metrics_folder

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


def directory_of(home: Path) -> Path:
    """The directory in which the processes of the server with this home write metrics and reports of tweaks."""
    return metrics_folder(home).resolve()


def prepare_directory(home: Path) -> Path:
    """Create an empty metrics directory, so that counters start at zero. Call it before the first replica starts."""
    folder = directory_of(home)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class Metrics:
    """The collectors of one replica. Build it once per process, after the environment names the directory."""

    def __init__(self, task: str):
        from prometheus_client import Counter, Gauge, Histogram

        self._task = task
        self._requests = Counter("flywheel_requests", "Requests answered.", ["task", "version", "endpoint", "status"])
        self._latency = Histogram(
            "flywheel_request_latency_seconds",
            "Time from the request's headers to its response, before the response is sent.",
            ["task", "version", "endpoint"],
            buckets=LATENCY_BUCKETS,
        )
        self._texts = Counter("flywheel_texts", "Texts that went through the model.", ["task", "version"])
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
        self._feedback = Counter("flywheel_feedback", "Corrections received, by result.", ["task", "status"])
        self._shadow = Counter(
            "flywheel_shadow_texts",
            "Predictions of a challenger in shadow against the champion's: agree, differ, or none (busy, failed).",
            ["task", "version", "result"],
        )
        self._loaded = Gauge(
            "flywheel_loaded_replicas",
            "Replicas that have the version in memory.",
            ["task", "version"],
            multiprocess_mode="livesum",
        )
        self._waiting = Gauge(
            "flywheel_waiting_texts", "Texts waiting for the model now.", ["task"], multiprocess_mode="livesum"
        ).labels(task)
        self._backlog = Gauge(
            "flywheel_backlog_seconds",
            "Queued work in seconds of model time, in the replica with the most.",
            ["task"],
            multiprocess_mode="livemax",
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
        self._child(self._texts, version).inc(size)
        self._child(self._batch, version).observe(size)
        self._child(self._stage, version, "infer").observe(seconds)

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
        from prometheus_client import REGISTRY, Counter, Gauge

        registry = registry or REGISTRY
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
            multiprocess_mode="livemostrecent",
        )

    def retraining(self, task: str, outcome: str) -> None:
        self._retrains.labels(task, outcome).inc()

    def move(self, task: str, step: str) -> None:
        self._moves.labels(task, step).inc()

    def corrections(self, task: str, counts: Mapping[FeedbackState, int]) -> None:
        for state, count in counts.items():
            self._corrections.labels(task, state).set(count)


def collect() -> list[Any]:
    """The metric families of all processes on this machine, without gauges of dead processes."""
    return list(_registry().collect())


def loaded_replicas() -> dict[tuple[str, str], float]:
    """The number of replicas on this machine with each (task, version) in memory."""
    samples = (sample for family in collect() for sample in family.samples if family.name == "flywheel_loaded_replicas")
    return {(sample.labels["task"], sample.labels["version"]): sample.value for sample in samples}


def exposition() -> tuple[bytes, str]:
    """`collect` as Prometheus text, and its content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(_registry()), CONTENT_TYPE_LATEST


def _registry() -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, multiprocess

    folder = os.environ[DIRECTORY_VARIABLE]
    for file in Path(folder).glob("gauge_live*_*.db"):
        pid = int(file.stem.rsplit("_", 1)[1])
        if not Path(f"/proc/{pid}").exists() and Path("/proc").exists():
            multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry
