"""The values of all collectors of a process at one moment, and their sums over processes.

prometheus-client has an object for each line of the exposition, and a histogram has 17 lines: here it is one list of
numbers. So collecting some thousand series of several processes takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from serve.metrics.catalogue import BY_FAMILY
from serve.metrics.metric import NO_VERSION, kept_versions

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

Labels = tuple[str, ...]
"""the values of a metric's labels, in its order"""
Values = list[float]
"""one number; of a histogram, the cumulative counts of its buckets, infinity the last, and the sum"""
Snapshot = dict[str, dict[Labels, Values]]
"""by Metric.family"""


def snapshot(collector: Collector) -> Snapshot:
    """The values of our metrics in one process; other collectors of its registry are left out."""
    found: Snapshot = {}
    for family in collector.collect():
        metric = BY_FAMILY.get(family.name)
        if metric is None:
            continue
        children = found.setdefault(family.name, {})
        if metric.kind == "histogram":
            children.update(_histograms(family.samples))
        else:
            children.update((tuple(sample.labels.values()), [sample.value]) for sample in family.samples)
    return found


def _histograms(samples: Iterable[Any]) -> Iterator[tuple[Labels, Values]]:
    """Each histogram of a family: prometheus-client gives its buckets in order, then count and sum."""
    buckets: Values = []
    for sample in samples:
        if "le" in sample.labels:
            buckets.append(sample.value)
        elif sample.name.endswith("_sum"):
            yield tuple(sample.labels.values()), [*buckets, sample.value]
            buckets = []


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Counters and histograms are summed, gauges as their metric says."""
    found: Snapshot = {}
    for one in snapshots:
        for family, children in one.items():
            have = found.setdefault(family, {})
            highest = BY_FAMILY[family].of_processes == "max"
            for labels, values in children.items():
                old = have.get(labels)
                if old is None:
                    have[labels] = values
                elif highest:
                    have[labels] = [max(old[0], values[0])]
                else:
                    have[labels] = [a + b for a, b in zip(old, values, strict=True)]
    return found


def minus(counts: Snapshot, before: Snapshot) -> Snapshot:
    """`counts` without those that a process had `before`."""
    return {
        family: {
            labels: [a - b for a, b in zip(values, before[family][labels], strict=True)]
            if labels in before.get(family, ())
            else values
            for labels, values in children.items()
        }
        for family, children in counts.items()
    }


def without_gauges(counts: Snapshot) -> Snapshot:
    return {family: children for family, children in counts.items() if BY_FAMILY[family].kind != "gauge"}


def newest_versions(counts: Snapshot) -> Snapshot:
    """`counts` without the versions of each task that are not among its newest."""
    found: dict[str, set[str]] = {}
    of_versions = [family for family in counts if list(BY_FAMILY[family].labels)[:2] == ["task", "version"]]
    for family in of_versions:
        for task, version, *_ in counts[family]:
            found.setdefault(task, set()).add(version)
    kept = {task: kept_versions(versions - {NO_VERSION}) for task, versions in found.items()}
    for family in of_versions:
        counts[family] = {labels: values for labels, values in counts[family].items() if labels[1] in kept[labels[0]]}
    return counts


def samples_of(counts: Snapshot) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """By (name of the sample in the exposition, labels): the value. Without the buckets of histograms."""
    found = {}
    for family, children in counts.items():
        metric = BY_FAMILY[family]
        for labels, values in children.items():
            pairs = frozenset(zip(metric.labels, labels, strict=True))
            if metric.kind == "histogram":
                found[f"{metric.name}_count", pairs], found[f"{metric.name}_sum", pairs] = values[-2], values[-1]
            else:
                found[metric.name, pairs] = values[0]
    return found


def to_bytes(counts: Snapshot) -> bytes:
    return orjson.dumps({family: list(children.items()) for family, children in counts.items()})


def from_bytes(data: bytes) -> Snapshot:
    """Raises ValueError when `data` is cut."""
    return {
        family: {tuple(labels): values for labels, values in children}
        for family, children in orjson.loads(data).items()
    }
