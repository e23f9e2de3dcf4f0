"""GET /metrics in the formats of Prometheus: each metric, with hostile labels, as promtool and parsers want it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from serve.metrics import LoopMetrics, Metrics, ModelInfo, OpinionMetrics, UnansweredRequests, exposition
from serve.metrics.catalogue import BY_FAMILY
from serve.metrics.exposition import written
from serve.metrics.metric import process_registry
from serve.metrics.snapshot import Snapshot, from_bytes, merged, snapshot, to_bytes
from tests.helpers.collectors import registry_restored

HOSTILE = 'a "label"\\ of\nthree\tlines, é {x="y"}'


@pytest.fixture
def everything() -> Snapshot:
    """The counts of a replica and of the control application, with a value of each metric."""
    with registry_restored():
        replica = Metrics("intent")
        replica.request(HOSTILE, "predict", 200, 0.002)
        replica.batch("1", [3, 5], 0.004)
        replica.texts("1", "linear", 1)
        replica.cache("1", 1, 1, 1)
        replica.predictions("1", [HOSTILE], [{"label": HOSTILE, "score": 0.97, "confidence": "high", "handoff": True}])
        replica.feedback("accepted")
        replica.shadow("1", "agree")
        replica.loaded({"1": ModelInfo("CPUExecutionProvider", "int8", "2026-11-30T09:00:00+00:00")})
        replica.waiting(3, 0.5, 0.1)
        replica.log_lag(lambda: 0.25)
        of_replica = from_bytes(to_bytes(snapshot(process_registry())))
    registry = CollectorRegistry()
    control = LoopMetrics(registry, ["intent"])
    UnansweredRequests(None, ["intent"], registry)
    OpinionMetrics(["airlines"], ["negative"], registry).negative("airlines", 1, 2.5)
    control.gate("intent", {"latency": True, "labels": False})
    for metric in BY_FAMILY.values():
        if metric.kind == "gauge" and metric in control._collectors and metric.labels:
            others = tuple(HOSTILE for name in metric.labels if name != "task")
            control.set(metric, "intent", {others: 1.5})
    return merged([of_replica, snapshot(registry)])


def test_every_metric_is_in_it(everything: Snapshot) -> None:
    families = {family.name: family for family in text_string_to_metric_families(written(everything).decode())}
    assert families.keys() == BY_FAMILY.keys()
    for name, family in families.items():
        assert (family.type, family.documentation) == (BY_FAMILY[name].kind, BY_FAMILY[name].help)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == BY_FAMILY[name].labels.keys()


def test_both_formats_say_the_same(everything: Snapshot) -> None:
    text = text_string_to_metric_families(written(everything).decode())
    opened = open_metrics_families(written(everything, is_open=True).decode())
    samples = [{(s.name, *sorted(s.labels.items())): s.value for f in families for s in f.samples}
               for families in (text, opened)]  # fmt: skip
    assert samples[0] == samples[1]
    assert ("flywheel_predictions_total", ("label", HOSTILE), ("task", "intent"), ("version", "1")) in samples[0]
    assert samples[0]["flywheel_batch_tokens_total", ("kind", "padding"), ("task", "intent"), ("version", "1")] == 2


def test_buckets_are_cumulative_and_end_in_the_count(everything: Snapshot) -> None:
    lines = [
        line for line in written(everything).decode().splitlines() if "latency_seconds_" in line and "2000" not in line
    ]
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    of_buckets = [value for name, value in values.items() if "request_latency_seconds_bucket" in name]
    assert of_buckets == [0.0, 0.0, *[1.0] * 13]
    assert [value for name, value in values.items() if "request_latency_seconds_count" in name] == [1.0]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus)")
def test_promtool_has_nothing_to_say(everything: Snapshot) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=written(everything), capture_output=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_every_metric_is_of_the_conventions() -> None:
    for metric in BY_FAMILY.values():
        assert metric.name.startswith("flywheel_")
        assert metric.help.endswith(".")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert metric.of_processes == "sum" or metric.kind == "gauge"
        if {"task", "version"} <= metric.labels.keys():
            assert list(metric.labels)[:2] == ["task", "version"], "as what forgets old versions expects"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4"),
        ("text/plain;version=1.0.0;escaping=underscores", "text/plain; version=1.0.0"),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3", "application/openmetrics-text"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, content_type: str) -> None:
    text, found = exposition(accept)
    assert found.startswith(content_type)
    assert text.endswith(b"# EOF\n") == found.startswith("application/openmetrics-text")
