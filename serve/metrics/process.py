"""The process itself: memory, CPU time, file descriptors, and what was built."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from export.machine import flywheel_version
from serve.metrics.metric import Metric, process_registry

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_PROCESS = {"process": "`control` (control application and controller), or the task of the replicas"}
_OF = {
    "resident_memory_bytes": Metric(
        "flywheel_process_resident_memory_bytes", "gauge", "Memory in use, summed over the replicas.", _PROCESS
    ),
    "cpu_seconds": Metric(
        "flywheel_process_cpu_seconds_total", "counter", "CPU time, summed over the replicas.", _PROCESS
    ),
    "open_fds": Metric(
        "flywheel_process_open_fds",
        "gauge",
        "Open file descriptors, of the replica with the most.",
        _PROCESS,
        (),
        "max",
    ),
    "max_fds": Metric("flywheel_process_max_fds", "gauge", "Limit of open file descriptors.", _PROCESS, (), "max"),
}
BUILD = Metric(
    "flywheel_build_info",
    "gauge",
    "1, with the versions of what runs.",
    {name: f"version of {name}" for name in ("version", "python", "ray", "onnxruntime")} | {"version": "of Flywheel"},
    (),
    "max",
)
METRICS = (*_OF.values(), BUILD)


class ProcessMetrics:
    """A collector of prometheus-client, which reads /proc at a scrape. `process` is the label's value."""

    def __init__(self, process: str, registry: CollectorRegistry | None = None):
        registry = registry or process_registry()
        from prometheus_client import ProcessCollector

        self._process = process
        self._collector = ProcessCollector(namespace="flywheel", registry=None)
        registry.register(self)

    def describe(self) -> list[Any]:
        return [metric.samples() for metric in METRICS]

    def collect(self) -> Iterator[Any]:
        for found in self._collector.collect():
            if (metric := _OF.get(found.name.removeprefix("flywheel_process_"))) is not None:
                family = metric.samples()
                family.add_metric([self._process], found.samples[0].value)
                yield family
        build = BUILD.samples()
        build.add_metric(list(_build()), 1)
        yield build


@cache
def _build() -> tuple[str, ...]:
    onnxruntime = _version("onnxruntime") or _version("onnxruntime-gpu")
    return flywheel_version(), platform.python_version(), _version("ray"), onnxruntime


def _version(package: str) -> str:
    """The version of an installed package, "" for one that is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
