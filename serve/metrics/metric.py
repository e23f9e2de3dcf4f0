"""A metric is declared once: its name, type, meaning and labels. Its collector and docs/metrics.md are made of it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Kind = Literal["counter", "gauge", "histogram"]

TASK = "a task of the configuration"
VERSION = "a version of the task"
MAX_VERSIONS = 10
NO_VERSION = "none"


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric, under its name in the exposition: that of a counter ends in `_total`.

    - `labels`: each label, with the values that it takes, in words.
    - `buckets`: the upper bounds of a histogram, in the unit of its name, without infinity.
    - `of_processes`: what becomes of the values of several processes. Counters and histograms are summed.
    """

    name: str
    kind: Kind
    help: str
    labels: Mapping[str, str] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    of_processes: Literal["sum", "max"] = "sum"

    @property
    def family(self) -> str:
        """The name without `_total`, as prometheus-client has it."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name

    def collector(self, registry: CollectorRegistry | None = None) -> Any:
        """A new Counter, Gauge or Histogram of prometheus-client; `registry` is the process's by default."""
        process = process_registry()  # before the import
        import prometheus_client

        make = getattr(prometheus_client, self.kind.capitalize())
        options = {"buckets": self.buckets} if self.kind == "histogram" else {}
        return make(self.name, self.help, list(self.labels), registry=registry or process, **options)

    def samples(self) -> Any:
        """An empty family of prometheus-client for a collector of our own, to which `add_metric` adds samples."""
        from prometheus_client import core

        make = getattr(core, f"{self.kind.capitalize()}MetricFamily")
        return make(self.name, self.help, labels=list(self.labels))


def process_registry() -> CollectorRegistry:
    """The registry of this process's collectors. Call it before any other module imports prometheus-client."""
    # With one of these set, as another program may have left it, prometheus-client would count in memory-mapped files:
    # a full disk then kills the process with SIGBUS. It reads them when it is first imported.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    from prometheus_client import REGISTRY, disable_created_metrics

    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each counter's start, which cannot be summed over processes
    return REGISTRY


def kept_versions(known: Iterable[str], loaded: Collection[str] = ()) -> set[str]:
    """Those whose series are kept: the newest by number, those in `loaded`, and NO_VERSION."""
    by_age = sorted(known, key=lambda version: (version.isdecimal(), int(version) if version.isdecimal() else 0))
    return {*by_age[-MAX_VERSIONS:], *loaded, NO_VERSION}
