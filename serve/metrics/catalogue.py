"""All metrics, by the process that sets them."""

from __future__ import annotations

from serve.metrics import controller, haproxy, opinion, predictions, process, replica, store
from serve.metrics.metric import Metric

GROUPS: dict[str, tuple[Metric, ...]] = {
    "Replicas: requests, batches, queue and cache": replica.METRICS,
    "Replicas: what the models answered": predictions.METRICS,
    "HAProxy": haproxy.METRICS,
    "The controller": controller.METRICS,
    "Opinion monitoring": opinion.METRICS,
    "The store": store.METRICS,
    "Processes": process.METRICS,
}
BY_FAMILY = {metric.family: metric for metrics in GROUPS.values() for metric in metrics}
