"""What a replica counts is bounded, whatever clients and models do."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from serve.metrics import Metrics, ModelInfo
from serve.metrics.metric import MAX_VERSIONS, process_registry
from serve.metrics.predictions import MAX_LABELS, OTHER
from serve.metrics.snapshot import Snapshot, from_bytes, merged, snapshot, to_bytes
from tests.helpers.collectors import registry_restored

INFO = ModelInfo("CPUExecutionProvider", "int8", "2026-11-30T09:00:00+00:00")


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with registry_restored():
        yield Metrics("intent")


def now() -> Snapshot:
    return snapshot(process_registry())


def test_predictions_by_label_score_confidence_and_reason(metrics: Metrics) -> None:
    labels = ["refund", "out_of_scope"]
    metrics.predictions("1", labels, [
        {"label": "refund", "score": 0.97, "confidence": "high", "handoff": False},
        {"label": "refund", "score": 0.5, "confidence": "low", "handoff": True, "reason": "low_confidence"},
        {"label": "out_of_scope", "score": 0.95, "confidence": "high", "handoff": True, "reason": "out_of_scope"},
    ])  # fmt: skip
    found = now()
    assert found["flywheel_predictions"] == {
        ("intent", "1", "refund"): [2.0], ("intent", "1", "out_of_scope"): [1.0],
    }  # fmt: skip
    [score] = found["flywheel_prediction_score"].values()
    assert score == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 3, 3, pytest.approx(2.42)]  # a bound belongs to its bucket
    assert found["flywheel_prediction_confidence"]["intent", "1", "high"] == [2.0]
    assert found["flywheel_handoffs"] == {
        ("intent", "1", "low_confidence"): [1.0], ("intent", "1", "out_of_scope"): [1.0],
    }  # fmt: skip


def test_a_ranking_counts_once_with_its_best_score(metrics: Metrics) -> None:
    metrics.predictions("1", [], [{"id": "a", "score": 0.9}, {"id": "b", "score": 0.1}])
    metrics.predictions("1", [], [])
    found = now()
    assert found["flywheel_prediction_score"]["intent", "1"][-2:] == [1.0, 0.9]
    assert found["flywheel_predictions"] == found["flywheel_prediction_confidence"] == {}


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_broken_model_does_not_break_the_metrics(metrics: Metrics, score: float) -> None:
    metrics.predictions("1", ["refund"], [{"label": "refund", "score": score}, {"label": "refund", "score": 0.5}])
    of_replica = from_bytes(to_bytes(now()))
    found = merged([of_replica, of_replica])
    assert found["flywheel_predictions"]["intent", "1", "refund"] == [4]
    assert found["flywheel_prediction_score"]["intent", "1"][-2:] == [2, 1.0]  # the one that has a score


def test_5000_labels_have_100_series_and_other(metrics: Metrics) -> None:
    labels = [f"label {n}" for n in range(5000)]
    for label in labels:
        metrics.predictions("1", labels, [{"label": label, "score": 0.5}])
    counted = now()["flywheel_predictions"]
    assert len(counted) == MAX_LABELS + 1
    assert counted["intent", "1", OTHER] == [4900.0]
    assert sum(value for [value] in counted.values()) == 5000


def test_a_task_of_your_own_makes_no_series_by_its_words(metrics: Metrics) -> None:
    for number in range(50):
        words = {"confidence": f"word {number}", "handoff": True, "reason": f"reason {number}"}
        metrics.predictions("1", ["a"], [{"label": f"label {number}", "score": 0.5, **words}])
    found = now()
    assert found["flywheel_predictions"] == {("intent", "1", OTHER): [50.0]}
    assert found["flywheel_handoffs"] == {("intent", "1", OTHER): [50.0]}
    assert all(value == [0.0] for value in found["flywheel_prediction_confidence"].values())


def test_versions_of_long_ago_have_no_series(metrics: Metrics) -> None:
    for number in range(1, 101):
        version = str(number)
        metrics.loaded({"1": INFO, version: INFO})  # 1 serves all the time
        metrics.request(version, "predict", 200, 0.1)
        metrics.batch(version, [3], 0.1)
        metrics.texts(version, "linear", 1)
        metrics.predictions(version, ["a"], [{"label": "a", "score": 0.5}])
    expected = {"1", *(str(n) for n in range(101 - MAX_VERSIONS, 101))}
    found = now()
    for family in ("flywheel_requests", "flywheel_stage_seconds", "flywheel_texts", "flywheel_prediction_score"):
        assert {version for _, version, *_ in found[family]} - {"none"} == expected, family
    assert {version for _, version, *_ in found["flywheel_model_info"]} == {"1", "100"}
    assert found["flywheel_loaded_replicas"]["intent", "99"] == [0.0]
    metrics.request("2", "predict", 200, 0.1)  # a request that was under way counts all the same
    assert found["flywheel_requests"].keys() < now()["flywheel_requests"].keys()


def test_refusals_are_counted_and_have_no_latency(metrics: Metrics) -> None:
    for code in (200, 422, 429, 503, 504):
        metrics.request("1", "predict", code, 0.001)
    found = now()
    counted = {code for *_, code in (key for key, value in found["flywheel_requests"].items() if value != [0.0])}
    assert counted == {"200", "422", "429", "503", "504"}
    [latency] = found["flywheel_request_latency_seconds"].values()
    assert latency[-2] == 3


def test_what_increase_must_see_is_there_from_the_start(metrics: Metrics) -> None:
    metrics.loaded({"1": INFO})
    found = now()
    for version in ("1", "none"):
        assert found["flywheel_requests"]["intent", version, "predict", "503"] == [0.0]
    assert {reason for _, reason in found["flywheel_dropped_texts"]} == {"overloaded", "expired", "cancelled"}
    assert {reason for _, reason in found["flywheel_unlogged_predictions"]} == {"full", "failed"}
    assert found["flywheel_store_errors"] == {("read",): [0.0], ("write",): [0.0]}


def test_process_and_build(metrics: Metrics) -> None:
    found = now()
    assert 1e7 < found["flywheel_process_resident_memory_bytes"]["intent",][0] < 1e11
    assert 0 < found["flywheel_process_open_fds"]["intent",][0] <= found["flywheel_process_max_fds"]["intent",][0]
    [(version, python, ray, onnxruntime)] = found["flywheel_build_info"]
    assert all((version, python, ray, onnxruntime))
