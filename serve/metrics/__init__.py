"""Prometheus metrics of the server. docs/metrics.md lists them; `catalogue` has all, by the process that sets them.

Replicas are processes: each counts in its own memory (`replica`, `predictions`), and the control application, which
has the controller's own (`controller`, `opinion`), asks them all for `GET /metrics` (`sockets`, `exposition`).
"""

from serve.metrics.controller import LoopMetrics
from serve.metrics.exposition import collect, collect_from, exposition, keep_counts, loaded_replicas, serve_metrics
from serve.metrics.haproxy import UnansweredRequests
from serve.metrics.metric import process_registry
from serve.metrics.opinion import OpinionMetrics
from serve.metrics.replica import Metrics, ModelInfo

__all__ = [
    "LoopMetrics",
    "Metrics",
    "ModelInfo",
    "OpinionMetrics",
    "UnansweredRequests",
    "collect",
    "collect_from",
    "exposition",
    "keep_counts",
    "loaded_replicas",
    "process_registry",
    "serve_metrics",
]
