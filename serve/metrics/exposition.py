"""The metrics of the whole server: collected from its processes, and written in the formats of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from serve.metrics import sockets
from serve.metrics.catalogue import BY_FAMILY
from serve.metrics.haproxy import UnansweredRequests
from serve.metrics.metric import Metric, process_registry
from serve.metrics.replica import LOADED
from serve.metrics.snapshot import Labels, Snapshot, Values, merged, snapshot

_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class _Server:
    """The processes whose metrics this one collects besides its own; none until `collect_from`."""

    processes: sockets.Processes | None = None
    unanswered: UnansweredRequests | None = None


def serve_metrics(folder: Path) -> None:
    """Let the control application collect this process's metrics, over a socket in `folder`."""
    sockets.serve(folder, process_registry())


def collect_from(folder: Path, unanswered: UnansweredRequests | None = None) -> None:
    """Collect the metrics of all processes that call `serve_metrics` with this folder, besides this process's own."""
    _Server.processes, _Server.unanswered = sockets.Processes(folder), unanswered


def collect() -> Snapshot:
    """The metrics of all processes on this machine, without gauges of dead processes."""
    others = _Server.processes.snapshots() if _Server.processes is not None else []
    return merged([*others, snapshot(process_registry())])


def keep_counts() -> None:
    """Ask all processes and HAProxy once: what one has counted by now stays in `collect` after its end."""
    if _Server.processes is not None:
        _Server.processes.snapshots()
    if _Server.unanswered is not None:
        _Server.unanswered.count()


def loaded_replicas() -> dict[tuple[str, str], float]:
    """The number of replicas on this machine with each (task, version) in memory."""
    return {(task, version): value for (task, version), [value] in collect().get(LOADED.family, {}).items()}


def exposition(accept: str = "") -> tuple[bytes, str]:
    """`collect` in the format of Prometheus that the Accept header asks for, and its content type."""
    from prometheus_client.exposition import choose_encoder

    _, content_type = choose_encoder(accept)
    return written(collect(), is_open=content_type.startswith("application/openmetrics-text")), content_type


def written(counts: Snapshot, *, is_open: bool = False) -> bytes:
    """The text format of Prometheus, or OpenMetrics."""
    lines: list[str] = []
    for family, children in counts.items():
        metric = BY_FAMILY[family]
        name = family if is_open else metric.name
        lines += (f"# HELP {name} {_escaped_help(metric, is_open)}", f"# TYPE {name} {metric.kind}")
        lines += _histogram_lines(metric, children) if metric.kind == "histogram" else _lines(metric, children)
    if is_open:
        lines.append("# EOF")
    return "\n".join([*lines, ""]).encode()


def _escaped_help(metric: Metric, is_open: bool) -> str:
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if is_open else text


def _lines(metric: Metric, children: dict[Labels, Values]) -> Iterator[str]:
    for labels, [value] in children.items():
        pairs = _pairs(metric, labels)
        yield f"{metric.name}{{{pairs}}} {value!r}" if pairs else f"{metric.name} {value!r}"


def _histogram_lines(metric: Metric, children: dict[Labels, Values]) -> Iterator[str]:
    bounds = [*map(str, map(float, metric.buckets)), "+Inf"]
    for labels, [*buckets, total] in children.items():
        pairs = _pairs(metric, labels)
        begin = f'{metric.name}_bucket{{{pairs}{"," if pairs else ""}le="'
        for bound, count in zip(bounds, buckets, strict=True):
            yield f'{begin}{bound}"}} {count!r}'
        rest = f"{{{pairs}}}" if pairs else ""
        yield f"{metric.name}_count{rest} {buckets[-1]!r}"
        yield f"{metric.name}_sum{rest} {total!r}"


def _pairs(metric: Metric, labels: Labels) -> str:
    """The labels in the order of their names, as prometheus-client writes them."""
    pairs = zip(metric.labels, labels, strict=True)
    return ",".join(sorted(f'{name}="{value.translate(_ESCAPED)}"' for name, value in pairs))
