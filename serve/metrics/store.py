"""Time and errors of the store's transactions, in the replicas and in the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.metrics.metric import Metric

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OPERATIONS = ("read", "write")
_LABELS = {"operation": ", ".join(OPERATIONS)}

SECONDS = Metric(
    "flywheel_store_operation_seconds",
    "histogram",
    "Time of one transaction, with the wait for a connection and for other writers. Of retraining processes: not.",
    _LABELS,
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
ERRORS = Metric(
    "flywheel_store_errors_total",
    "counter",
    "Transactions that failed because the database is unreachable, locked for too long, full or read-only.",
    _LABELS,
)
METRICS = (SECONDS, ERRORS)


class StoreMetrics:
    """The `observe` of a Store. Thread-safe."""

    def __init__(self, registry: CollectorRegistry | None = None):
        seconds, errors = SECONDS.collector(registry), ERRORS.collector(registry)
        self._seconds = {operation: seconds.labels(operation) for operation in OPERATIONS}
        self._errors = {operation: errors.labels(operation) for operation in OPERATIONS}

    def __call__(self, operation: str, seconds: float, failed: bool) -> None:
        self._seconds[operation].observe(seconds)
        if failed:
            self._errors[operation].inc()
