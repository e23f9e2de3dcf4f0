"""Every collector of the server.

Replicas are processes, so the collectors use prometheus-client's multiprocess mode: each process writes its own
memory-mapped files under `home/metrics`, and the control application sums them for `GET /metrics`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


def prepare_directory(home: Path) -> Path:
    """An empty metrics directory, made before the first replica starts; counters begin at zero with the server."""
    folder = (home / "metrics").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


class Metrics:
    """The collectors of one replica. Build it once a process, after the environment names the directory."""

    def __init__(self, task: str):
        from prometheus_client import Counter, Gauge, Histogram

        self._task = task
        self._requests = Counter("flywheel_requests", "Requests answered.", ["task", "version", "endpoint", "status"])
        self._latency = Histogram(
            "flywheel_request_latency_seconds",
            "Time from the request's headers to its answer, before the answer is sent.",
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
            "flywheel_dropped_texts", "Texts that never reached the model, and why.", ["task", "reason"]
        )
        self._waiting = Gauge(
            "flywheel_waiting_texts", "Texts waiting for the model now.", ["task"], multiprocess_mode="livesum"
        ).labels(task)

    def request(self, version: str, endpoint: str, status: int, seconds: float) -> None:
        self._requests.labels(self._task, version, endpoint, str(status)).inc()
        self._latency.labels(self._task, version, endpoint).observe(seconds)

    def batch(self, version: str, size: int, seconds: float) -> None:
        self._texts.labels(self._task, version).inc(size)
        self._batch.labels(self._task, version).observe(size)
        self._stage.labels(self._task, version, "infer").observe(seconds)

    def stage(self, version: str, stage: str, seconds: float) -> None:
        self._stage.labels(self._task, version, stage).observe(seconds)

    def dropped(self, reason: str) -> None:
        self._dropped.labels(self._task, reason).inc()

    def waiting(self, texts: int) -> None:
        self._waiting.set(texts)


def exposition() -> tuple[bytes, str]:
    """The text of all processes' collectors and its content type, gauges of dead processes left out."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess

    folder = os.environ[DIRECTORY_VARIABLE]
    for file in Path(folder).glob("gauge_live*_*.db"):
        pid = int(file.stem.rsplit("_", 1)[1])
        if not Path(f"/proc/{pid}").exists() and Path("/proc").exists():
            multiprocess.mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
