"""The benchmark's own arithmetic: what it sends, ratios within rounds, bounds, the report and the plot. No timing."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from loadtests import bench, drivers, homes, limit, markdown, plot, servers
from loadtests.drivers import Call
from loadtests.homes import home_for
from loadtests.peers import PEERS, PeerError
from loadtests.report import BOUNDS, print_report, summarize, within
from loadtests.scenarios.poisoned import not_refused
from loadtests.servers import FLYWHEEL, TITLES, champion_bundle
from loadtests.texts import (
    BANKING77,
    Corpus,
    corpus_of,
    default_corpus,
    distinct,
    load_corpus,
    mixed_lengths,
    rankings,
    seed_texts,
    zipf,
)

TEXTS = ["where is my order", "cancel it", "I want my money back now please", "hello there"]
LOAD = {"p50_ms": 2.0, "p95_ms": 3.0, "p99_ms": 4.0, "errors": 0}


def _tokens(text: str) -> int:
    return len(text.split()) + 2  # a word is a token, and two are special


def _round(speed: float, short_p99: float = 8.0) -> dict[str, Any]:
    """A round on a machine of this speed; its ratios are the same at any speed."""
    load = {key: value / speed for key, value in LOAD.items() if key != "errors"} | {"errors": 0}
    kinds = {"short": {"count": 9, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": short_p99}}
    flywheel = {
        "c1": {**load, "p50_ms": 0.5 / speed, "rps": 300 * speed},
        "c64": {**load, "rps": 1600 * speed, "early": 0.6},
        "batch32": {**load, "rps": 60 * speed},
        "mixed_alone": {**load, "rps": 900 * speed, "kinds": {"short": {**kinds["short"], "p99_ms": 5.0}}},
        "mixed": {**load, "rps": 500 * speed, "kinds": kinds},
    }
    cached = {
        "zipf": {**load, "rps": 3000 * speed},
        "recommendation": {**load, "p50_ms": 1 / speed, "rps": 200 * speed},
    }
    peers = {name: {"c1": {**load, "rps": 9.0}, "c64": {**load, "rps": 400 * speed}} for name in PEERS}
    servers = {"flywheel": flywheel, "flywheel_cache": cached, **peers}
    return {
        "limit_rps": 1000 * speed,
        "limit_batch1_ms": 1 / speed,
        "limit_drift": 1.1,
        "servers": servers,
        "memory": {name: {"rss_mb": 2000.0, "pss_mb": 1500.0} for name in servers},
        "encoder_accuracy": 0.93,
        "labels": {
            name: {"asked": 100, "differ": 0, "errors": 0, "as_encoder": 0.99, "accuracy": 0.95}
            for name in ("flywheel", *PEERS)
        },
    }


def _report(rounds: list[dict[str, Any]], **tests: Any) -> dict[str, Any]:
    facts = {"machine": "a machine", "versions": "some versions", "texts": "some texts", "target_s": 1.0,
             "corpus": tests.get("corpus", "banking77"),
             "model": "intent int8, exported today", "limit_setting": {"batch": 8}, "problems": {}}  # fmt: skip
    return summarize(rounds, facts, tests.get("overload"), tests.get("soak"))


def _rows(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["what"]: row for row in report["thresholds"]}


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
    share = rows["c=64: times the encoder's in-process limit"]
    assert share["value"] == pytest.approx(1.6)
    assert share["spread"] == pytest.approx([1.6, 1.6])
    assert report["servers"]["flywheel"]["c64"]["rps_spread"] == [800, 3200]
    assert rows["c=64: times the best peer"]["value"] == pytest.approx(4)
    assert rows["c=64: p99 over mosec's"]["value"] == pytest.approx(1)
    assert rows["c=1: p50 over the encoder's in-process time of one text"]["value"] == pytest.approx(0.5)
    assert rows["32 texts a request: times the limit"]["value"] == pytest.approx(1.92)
    assert rows["Zipf with cache: times the limit"]["value"] == pytest.approx(3)


def test_bounds_are_met_or_missed_by_the_median_and_within_the_noise_where_rounds_differ() -> None:
    rows = _rows(_report([_round(1, short_p99=9), _round(1, short_p99=11), _round(1, short_p99=30)]))
    mixed = rows.pop("mixed lengths: p99 of short texts over their p99 alone")
    assert (mixed["met"], mixed["verdict"], mixed["spread"]) == (False, "within the noise", pytest.approx([1.8, 6]))
    assert {row["verdict"] for row in rows.values()} == {"met"}
    assert len(rows) == len(BOUNDS) - 1
    mixed = _rows(_report([_round(1, short_p99=11), _round(1, short_p99=30)]))[mixed["what"]]
    assert (mixed["met"], mixed["verdict"]) == (False, "missed")


def test_a_fault_in_one_round_is_no_noise() -> None:
    faulty = _round(1)
    faulty["labels"]["flywheel"]["differ"] = 1
    faulty["servers"]["flywheel_cache"]["zipf"]["errors"] = 2
    rows = _rows(_report([_round(1), faulty, _round(1)]))
    for what, value in (("labels under load that differ from those alone", 1), ("Flywheel's failed requests", 2)):
        assert (rows[what]["value"], rows[what]["verdict"]) == (value, "missed")


def test_accuracy_is_reported_for_every_server_and_has_bounds() -> None:
    worse = _round(1)
    worse["labels"]["flywheel"]["accuracy"] = 0.92
    report = _report([_round(1), worse, _round(1)])
    rows = _rows(report)
    assert rows["accuracy on Banking77's test texts"]["verdict"] == "within the noise"
    assert rows["accuracy, less the encoder's own in process"]["value"] == pytest.approx(0.02)
    assert report["labels"]["flywheel"]["accuracy_spread"] == [0.92, 0.95]
    assert {found["accuracy"] for found in report["labels"].values()} == {0.95}
    assert report["servers"]["flywheel"]["c64"]["early"] == 0.6
    of_the_seed = _report([_round(1)], corpus="seed")
    assert "accuracy on Banking77's test texts" not in {*_rows(of_the_seed), *of_the_seed["not_measured"]}


def test_without_a_known_truth_there_is_no_accuracy() -> None:
    unknown = _round(1)
    del unknown["encoder_accuracy"]
    for found in unknown["labels"].values():
        del found["accuracy"]
    report = _report([unknown])
    assert "accuracy, less the encoder's own in process" in report["not_measured"]
    console = Console(width=160, record=True, file=io.StringIO())
    print_report(report, console)
    assert "99.00%" in console.export_text()
    assert "99.0%" in markdown.tables(report)


def test_the_best_peer_of_a_round_is_compared_and_that_of_all_rounds_is_named() -> None:
    rounds = [_round(1), _round(1), _round(1)]
    for r, best in zip(rounds, ("mosec", "mosec", "fastapi"), strict=True):
        r["servers"][best]["c64"]["rps"] = 800
    report = _report(rounds)
    assert _rows(report)["c=64: times the best peer"]["spread"] == [2, 2]
    assert report["best_peer"] == "mosec"


def test_what_was_not_measured_has_no_bound() -> None:
    lone = _round(1)
    lone["servers"] = {"flywheel": {"c64": lone["servers"]["flywheel"]["c64"]}}
    assert within([lone], lambda r: float(r["servers"]["flywheel"]["c1"]["rps"])) == []
    report = _report([lone])
    assert "c=64: times the encoder's in-process limit" in _rows(report)
    unmeasured = {"c=64: times the best peer", "c=64: p99 over mosec's",
                  "c=1: p50 over the encoder's in-process time of one text"}  # fmt: skip
    assert unmeasured <= set(report["not_measured"])
    assert not unmeasured & set(_rows(report))
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
    assert "exported today" in shown
    assert "60%" in shown
    assert shown.count("95.0%") == len(PEERS) + 1
    assert max(map(len, shown.splitlines())) <= 140


def test_the_markdown_has_a_row_for_every_server_and_bound() -> None:
    drawn = markdown.tables(_report([_round(1), _round(2, short_p99=40)]))
    lines = [line for line in drawn.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in lines} == {10, 6}
    assert f"| **{TITLES['flywheel']}** | 2,400 | 1.60 (1.60 to 1.60); 60% early | 3 | 0.4 |" in drawn
    assert all(TITLES[name] in drawn for name in ("flywheel", *PEERS))
    assert all(f"| {bound.what} |" in drawn for bound in BOUNDS)
    assert "within the noise, median misses it" in drawn


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ('flywheel_texts_total{task="intent",version="1"} 9.0\n', {}),
        (
            'flywheel_texts_total{task="intent",version="1",stage="linear"} 6.0\n'
            'flywheel_texts_total{task="intent",version="2",stage="linear"} 1.0\n'
            'flywheel_texts_total{stage="encoder",task="intent",version="1"} 3.0\n'
            'flywheel_texts_total{task="sentiment",version="1",stage="encoder"} 50.0\n',
            {"linear": 7, "encoder": 3},
        ),
    ],
)
def test_texts_are_counted_by_stage_where_the_server_says_so(
    monkeypatch: pytest.MonkeyPatch, metrics: str, expected: dict[str, int]
) -> None:
    monkeypatch.setattr(servers.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(metrics.encode()))
    assert servers.texts_by_stage("http://127.0.0.1:1") == expected


def test_a_corpus_is_of_a_model_that_knows_its_labels(tmp_path: Path) -> None:
    corpus = load_corpus("seed")
    assert corpus.texts == seed_texts("intent")
    labels = sorted(set(corpus.truth.values()))
    for name, known in (("all", labels), ("few", labels[1:])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps({"labels": known}))
    assert corpus.is_of(tmp_path / "all")
    assert not corpus.is_of(tmp_path / "few")
    assert corpus_of(tmp_path / "all").name == "seed"
    assert corpus_of(tmp_path / "few").name == default_corpus()


def test_a_home_without_a_model_is_told_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    with pytest.raises(PeerError, match=f"no intent model in {tmp_path} yet. Run: make serve"):
        home_for(load_corpus("seed"), Console())


@pytest.mark.skipif(not (BANKING77 / "train.csv").is_file(), reason="Banking77 is not here")
def test_banking77_is_asked_of_a_model_of_its_own_beside_the_homes_other_champions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    console, banking77 = Console(file=io.StringIO()), Corpus("banking77", "Banking77 test", {"where is it": "lost"})
    _release(tmp_path, "intent", "recommendation", "sentiment", version="7")
    assert home_for(load_corpus("seed"), console) == tmp_path
    monkeypatch.setattr(homes, "COMMAND", Path("/bin/false"))  # in place of `flywheel train`
    with pytest.raises(PeerError, match="could not be trained"):
        home_for(banking77, console)
    _release(tmp_path / "bench", "intent", "sentiment", version="1")  # an older sentiment, and a trained intent
    own = home_for(banking77, console)
    assert own == tmp_path / "bench"
    served = {task: json.loads((own / "releases" / f"{task}.json").read_text())["champion"] for task in _TASKS}
    assert served == {"intent": "1", "recommendation": "7", "sentiment": "7"}
    assert champion_bundle(own) == own / "bundles" / "intent" / "1"
    assert [folder.name for folder in (own / "bundles" / "sentiment").iterdir()] == ["7"]


_TASKS = ("intent", "recommendation", "sentiment")


def _release(home: Path, *tasks: str, version: str) -> None:
    for task in tasks:
        (home / "bundles" / task / version).mkdir(parents=True, exist_ok=True)
        (home / "releases").mkdir(exist_ok=True)
        release = {"champion": version, "versions": {version: f"bundles/{task}/{version}"}}
        (home / "releases" / f"{task}.json").write_text(json.dumps(release))


def test_every_text_is_asked_once_for_its_label_and_failures_are_counted() -> None:
    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        asked: ClassVar[list[str]] = []

        def do_POST(self) -> None:
            text = json.loads(self.rfile.read(int(self.headers["content-length"])))["text"]
            self.asked.append(text)
            body = json.dumps({"predictions": [{"label": f"label of {text}"}]}).encode()
            self.send_response(500 if text == "text 7" else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # connections that open at the same time

    texts = [f"text {number}" for number in range(150)]
    with Server(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        labels, failed = servers.labels_under_load(FLYWHEEL, f"http://127.0.0.1:{server.server_port}", texts)
        server.shutdown()
    assert sorted(Answers.asked) == sorted(texts)
    assert failed == 1
    assert labels == {text: f"label of {text}" for text in texts if text != "text 7"}


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
