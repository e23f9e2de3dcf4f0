"""The benchmark's own arithmetic: what it sends, ratios within rounds, bounds, the report and the plot. No timing."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadtests import bench, drivers, limit, plot
from loadtests.drivers import Call
from loadtests.peers import PEERS
from loadtests.report import BOUNDS, print_report, summarize, within
from loadtests.scenarios.poisoned import not_refused
from loadtests.servers import TITLES
from loadtests.texts import distinct, mixed_lengths, rankings, seed_texts, zipf

TEXTS = ["where is my order", "cancel it", "I want my money back now please", "hello there"]
LOAD = {"p50_ms": 2.0, "p95_ms": 3.0, "p99_ms": 4.0, "errors": 0}


def _tokens(text: str) -> int:
    return len(text.split()) + 2  # a word is a token, and two are special


def _round(speed: float, short_p99: float = 8.0) -> dict[str, Any]:
    """A round on a machine of this speed; its ratios are the same at any speed."""
    load = {key: value / speed for key, value in LOAD.items() if key != "errors"} | {"errors": 0}
    kinds = {"short": {"count": 9, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": short_p99}}
    flywheel = {
        "c1": {**load, "rps": 300 * speed},
        "c64": {**load, "rps": 800 * speed},
        "batch32": {**load, "rps": 30 * speed},
        "mixed_alone": {**load, "rps": 900 * speed, "kinds": {"short": {**kinds["short"], "p99_ms": 5.0}}},
        "mixed": {**load, "rps": 500 * speed, "kinds": kinds},
    }
    cached = {"zipf": {**load, "rps": 3000 * speed}, "recommendation": {**load, "rps": 200 * speed}}
    peers = {name: {"c1": {**load, "rps": 9.0}, "c64": {**load, "rps": 400 * speed}} for name in PEERS}
    servers = {"flywheel": flywheel, "flywheel_cache": cached, **peers}
    return {
        "limit_rps": 1000 * speed,
        "limit_batch1_ms": 1 / speed,
        "limit_drift": 1.1,
        "servers": servers,
        "memory": {name: {"rss_mb": 2000.0, "pss_mb": 1500.0} for name in servers},
        "labels": {name: {"asked": 100, "differ": 0, "errors": 0, "agree": 1.0} for name in ("flywheel", *PEERS)},
    }


def _report(rounds: list[dict[str, Any]], **tests: Any) -> dict[str, Any]:
    facts = {"machine": "a machine", "versions": "some versions", "texts": "some texts", "target_s": 1.0,
             "model": "intent int8, exported today", "limit_setting": {"batch": 8}, "problems": {}}  # fmt: skip
    return summarize(rounds, facts, tests.get("overload"), tests.get("soak"))


def test_zipf_draws_the_first_text_most_and_falls_off_as_the_power_says() -> None:
    counts = Counter(zipf([str(rank) for rank in range(1, 3001)], 100_000))
    assert counts["1"] / counts["2"] == pytest.approx(2**1.1, rel=0.1)
    assert counts["1"] / counts["10"] == pytest.approx(10**1.1, rel=0.15)
    assert len(counts) > 2500


def test_draws_are_the_same_in_each_run() -> None:
    assert zipf(TEXTS, 50) == zipf(TEXTS, 50)
    assert mixed_lengths(TEXTS, _tokens, 50) == mixed_lengths(TEXTS, _tokens, 50)
    assert rankings(3, 5, 2) == rankings(3, 5, 2)


def test_distinct_extends_a_small_corpus_and_keeps_a_large_one() -> None:
    assert distinct(TEXTS, 3) == TEXTS[:3]
    extended = distinct(TEXTS, 12)
    assert extended[:4] == TEXTS
    assert len(set(extended)) == 12


def test_mixed_lengths_are_nine_tenths_short_and_run_to_256_tokens() -> None:
    pairs = mixed_lengths(TEXTS, _tokens, 2000)
    short = [_tokens(text) for kind, text in pairs if kind == "short"]
    long = [_tokens(text) for kind, text in pairs if kind == "long"]
    assert (len(short), len(long)) == (1800, 200)
    assert (min(short), max(short)) == (3, 16)
    assert min(long) > 16
    assert 240 < max(long) <= 256


def test_a_ranking_has_its_candidates_and_history_and_no_item_twice() -> None:
    (body,) = rankings(1, candidates=100, history=10)
    request = json.loads(body)
    items = request["candidates"] + request["user"]["history"]
    assert len(request["candidates"]) == 100
    assert len({item["id"] for item in items}) == 110


def test_seed_texts_are_the_holdout() -> None:
    assert len(seed_texts("intent")) > 400


def test_the_limit_is_sought_over_batches_processes_and_threads() -> None:
    settings = limit.settings()
    assert {setting.batch for setting in settings} == {4, 8, 16, 32}
    assert all(setting.processes * setting.threads == limit.cores() for setting in settings)


def test_the_limit_is_that_of_the_setting_which_was_fastest_over_all_rounds() -> None:
    lucky, steady = limit.Setting(2, 1, 4), limit.Setting(2, 1, 32)
    rounds: list[dict[str, Any]] = [
        {"limits": {lucky: [900.0, 500.0], steady: [600.0, 620.0]}},
        {"limits": {lucky: [500.0, 500.0], steady: [700.0, 720.0]}},
        {"limits": {lucky: [510.0, 500.0], steady: [400.0, 600.0]}},
    ]
    assert limit.settle(rounds) == steady
    assert [r["limit_rps"] for r in rounds] == [610, 710, 500]
    assert rounds[2]["limit_drift"] == pytest.approx(1.5)
    assert json.loads(json.dumps(rounds)) == rounds


def test_ratios_are_taken_within_a_round_so_that_drift_cancels() -> None:
    report = _report([_round(1), _round(0.5), _round(2)])
    rows = {row["what"]: row for row in report["thresholds"]}
    share = rows["c=64: share of the in-process limit"]
    assert share["value"] == pytest.approx(0.8)
    assert share["spread"] == pytest.approx([0.8, 0.8])
    assert report["servers"]["flywheel"]["c64"]["rps_spread"] == [400, 1600]
    assert rows["c=64: times the best peer"]["value"] == pytest.approx(2)
    assert rows["c=1: p50 over in-process batch-1 time"]["value"] == pytest.approx(2)
    assert rows["32 texts a request: share of the limit"]["value"] == pytest.approx(0.96)
    assert rows["Zipf with cache: times the limit"]["value"] == pytest.approx(3)


def test_bounds_are_met_or_missed_by_the_median() -> None:
    report = _report([_round(1, short_p99=9), _round(1, short_p99=11), _round(1, short_p99=30)])
    met = {row["what"]: row["met"] for row in report["thresholds"]}
    assert met.pop("mixed lengths: p99 of short texts over their p99 alone") is False
    assert met.pop("c=1: p50 over in-process batch-1 time") is False
    assert all(met.values())
    assert len(met) == len(BOUNDS) - 2


def test_what_was_problems_has_no_bound() -> None:
    lone = _round(1)
    lone["servers"] = {"flywheel": {"c64": lone["servers"]["flywheel"]["c64"]}}
    assert within([lone], lambda r: float(r["servers"]["flywheel"]["c1"]["rps"])) == []
    what = {row["what"] for row in _report([lone])["thresholds"]}
    assert "c=64: share of the in-process limit" in what
    assert not any("peer" in one or "c=1" in one for one in what)
    assert {"c=64: times the best peer", "c=1: p50 over in-process batch-1 time"} <= set(
        _report([lone])["not_measured"]
    )
    assert _report([_round(1)])["not_measured"] == []


def test_overload_and_soak_have_their_bounds() -> None:
    overload = {"accepted_p99_ms": 1500.0, "shed_p99_ms": 80.0, "lost": 0, "hung": 0, "other": 0}
    report = _report([_round(1)], overload=overload, soak={"growth": 0.01, "errors": 0})
    rows = {row["what"]: row for row in report["thresholds"]}
    assert rows["overload: accepted p99 over the target"]["met"]
    assert not rows["overload: p99 of a 503, ms"]["met"]
    assert rows["soak: growth of memory"]["met"]


def test_the_report_has_the_promised_keys_and_is_json() -> None:
    report = json.loads(json.dumps(_report([_round(1)])))
    assert {"limit_rps", "limit_batch1_ms", "machine", "versions", "thresholds", "servers"} <= set(report)
    assert set(report["servers"]) == set(TITLES)
    for scenarios in report["servers"].values():
        for load in scenarios.values():
            assert {"rps", "p50_ms", "p95_ms", "p99_ms", "errors", "rss_mb", "pss_mb"} <= set(load)


def test_the_table_names_every_server_and_every_bound() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    report = _report([_round(1)])
    report["rounds"][0]["limit_drift"] = 2.5
    report["problems"] = {"infinity": "could not be installed\nno network"}
    print_report(report, console)
    shown = console.export_text()
    assert all(title in shown for title in TITLES.values())
    assert all(bound.what in shown for bound in BOUNDS)
    assert "could not be installed" in shown
    assert "round 1 was disturbed" in shown
    assert "MISSED" in shown
    assert "exported today" in shown


def test_the_plot_is_an_svg_of_every_server(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(_report([_round(1), _round(2)]), tmp_path / "docs" / "benchmark.svg")
    drawn = (tmp_path / "docs" / "benchmark.svg").read_text()
    assert "<svg" in drawn


def test_options_name_known_peers_and_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.parse([]).peers == list(PEERS)
    assert bench.parse([]).plot == bench.PLOT
    chosen = bench.parse(["--peers", "none", "--scenarios", "c1,c64"])
    assert (chosen.peers, chosen.scenarios, chosen.plot) == ([], ["c1", "c64"], None)
    with pytest.raises(SystemExit):
        bench.parse(["--peers", "triton"])
    assert "there is no triton" in capsys.readouterr().err


def test_the_bundled_driver_counts_what_fails_and_keeps_kinds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [Call("/a", b"{}", "short"), Call("/b", b"{}", "long")]

    def drive(url: str, calls: Any, connections: int, seconds: float, each: Any) -> float:
        for number in range(20):
            each(number % 2, 200, 0.001 * (1 + number % 2), b"")
        each(0, 503, 0.5, b"")
        each(0, 0, 0.5, b"")
        return 2.0

    monkeypatch.setattr(drivers, "drive", drive)
    monkeypatch.setattr(drivers.shutil, "which", lambda _: None)
    result = drivers.load("http://127.0.0.1:1", calls, 2, 1, by_kind=True)
    assert result["rps"] == 10
    assert result["errors"] == 2
    assert result["kinds"]["short"]["p50_ms"] == pytest.approx(1)
    assert result["kinds"]["long"]["p99_ms"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("end", "expected"), [("refused", []), ("too_few", []), ("failed", ["failed"]), ("released", ["released"])]
)
def test_a_poisoned_batch_must_be_refused_and_not_only_come_to_nothing(end: str, expected: list[str]) -> None:
    actions = [f"retrain {end}", "retrain started", "retrain asked", "promote"]
    assert not_refused([{"action": action} for action in actions]) == expected
