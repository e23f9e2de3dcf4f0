"""A load test fails by a sentence that says which threshold was missed, and by how much."""

from __future__ import annotations

from loadtests.locust.scenarios import SCENARIOS
from loadtests.locust.thresholds import REFUSED, Fact, Figures, Threshold, misses, table

BOUND = Threshold("predict", max_p95_ms=100, max_p99_ms=250, max_failed=0.01, max_refused=0.2)
GOOD = Figures(requests=1000, failed=0, p50_ms=5, p95_ms=50, p99_ms=100)


def test_figures_within_their_bounds_miss_nothing() -> None:
    at_the_bounds = Figures(requests=1000, failed=10, p50_ms=5, p95_ms=100, p99_ms=250)
    assert misses([BOUND], {"predict": GOOD}) == []
    assert misses([BOUND], {"predict": at_the_bounds}) == []


def test_each_bound_is_missed_by_a_sentence_of_its_own() -> None:
    assert misses([BOUND], {"predict": Figures(1000, 0, 5, 101, 100)}) == [
        "predict: p95 was 101 ms; at most 100 ms are allowed"
    ]
    assert misses([BOUND], {"predict": Figures(1000, 0, 5, 50, 1251)}) == [
        "predict: p99 was 1,251 ms; at most 250 ms are allowed"
    ]
    assert misses([BOUND], {"predict": Figures(1000, 11, 5, 50, 100)}) == [
        "predict: 11 of 1000 requests failed, 1.10%; at most 1.00% may"
    ]


def test_refusals_under_overload_have_their_own_bound() -> None:
    def with_refused(count: int) -> dict[str, Figures]:
        return {"predict": GOOD, "predict" + REFUSED: Figures(count, 0, 1, 1, 1)}

    assert misses([BOUND], with_refused(250)) == []
    assert misses([BOUND], with_refused(251)) == [
        "predict: 251 of 1251 requests were refused, 20.1%; at most 20.0% may be"
    ]


def test_a_request_that_was_never_answered_is_a_miss() -> None:
    sentence = "predict: no request was answered, so that no bound was measured"
    assert misses([BOUND], {}) == [sentence]
    assert misses([BOUND], {"predict" + REFUSED: GOOD}) == [sentence]


def test_requests_without_a_threshold_may_not_fail() -> None:
    figures = {"predict": GOOD, "operator": Figures(5, 1, 1, 1, 1)}
    assert misses([BOUND], figures) == ["operator: 1 of 5 requests failed, and none may"]


def test_facts_that_were_not_met_are_misses() -> None:
    facts = [Fact("retraining", False, "it had not ended after 900 s"), Fact("moves", True, "version 3 was promoted")]
    assert misses([], {}, facts) == ["retraining: it had not ended after 900 s"]


def test_the_table_has_refusals_beside_their_requests() -> None:
    lines = table([BOUND], {"predict": GOOD, "predict" + REFUSED: Figures(7, 0, 1, 1, 1)}).splitlines()
    assert len(lines) == 2
    assert lines[1].split() == ["predict", "1,000", "0", "7", "5", "50", "100", "100,", "250"]


def test_every_scenario_has_a_locustfile_and_a_bound_for_each_kind_of_request() -> None:
    for scenario in SCENARIOS.values():
        assert scenario.locustfile.is_file()
        names = [threshold.name for threshold in scenario.thresholds]
        assert names
        assert len(set(names)) == len(names)
        for threshold in scenario.thresholds:
            assert threshold.max_p95_ms < threshold.max_p99_ms
    bounded = {threshold.name for threshold in SCENARIOS["everything"].thresholds}
    for scenario in SCENARIOS.values():
        assert {threshold.name for threshold in scenario.thresholds} <= bounded
