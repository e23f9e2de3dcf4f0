"""Writes docs/metrics.md from the metrics themselves: python -m serve.metrics.reference > docs/metrics.md"""

from __future__ import annotations

from collections.abc import Iterator

from serve.metrics.catalogue import GROUPS
from serve.metrics.metric import MAX_VERSIONS, Metric
from serve.metrics.predictions import MAX_LABELS

_HEAD = f"""# Metrics

`GET /metrics` answers for the whole server: replicas count in their own memory, and the control application asks them
all and sums. Written by `python -m serve.metrics.reference`; a test compares.

- Formats: the text format of Prometheus and OpenMetrics, as the scraper asks. Prometheus 3 makes native histograms of
  these classic ones with `convert_classic_histograms_to_nhcb: true` in the scrape configuration.
- Bounded: of a task, the versions in memory and the {MAX_VERSIONS} newest have series; of a version, {MAX_LABELS}
  labels and `other`. What clients send (paths, versions, topics) makes no series.
- A replica that ended: its gauges are gone at the next scrape; its counts stay in the sums. A restart of the control
  application begins all counts at 0, which Prometheus takes for the reset that it is.
- A series that begins with its first count hides it from `increase`. Where that would matter, the series is there from
  the start, with 0: dropped texts, unlogged predictions, errors of the store, retrainings, moves, opinion.
"""


def reference() -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *(line for title, metrics in GROUPS.items() for line in _section(title, metrics))])


def _section(title: str, metrics: tuple[Metric, ...]) -> Iterator[str]:
    yield f"## {title}\n"
    for metric in metrics:
        several = ", the largest of all processes" if metric.of_processes == "max" else ""
        yield f"### `{metric.name}`\n"
        yield f"{metric.kind.capitalize()}{several}. {metric.help}\n"
        for label, values in metric.labels.items():
            yield f"- `{label}`: {values}"
        if metric.buckets:
            yield f"- buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}"
        yield ""


if __name__ == "__main__":
    print(reference(), end="")
