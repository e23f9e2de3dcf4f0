"""From the rounds to figures: medians with their range, ratios within rounds, the bounds, the tables.

A round is `{"limit_rps", "limit_batch1_ms", "limit_drift", "limits": {setting: [before, after]}, "servers": {server:
{scenario: load}}, "memory": {server: {"rss_mb", "pss_mb"}}, "encoder_accuracy", "labels": {server: {"asked", "differ",
"errors", "as_encoder", "accuracy"}}}`; keys of what was not measured are missing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.peers import PEERS
from loadtests.servers import TITLES
from loadtests.workloads import ALONE, MANY, title

Round = dict[str, Any]
NOISE = "within the noise"
STEADY = 1.3  # a round whose two limits differ by a larger factor was disturbed
LATE_MS = 10.0
_FIGURES = ("rps", "p50_ms", "p95_ms", "p99_ms")
_OF_THE_MODEL = ("c1", "c16", "c64", "batch32", "zipf")  # scenarios with the same texts as the in-process limit


@dataclass(frozen=True)
class Bound:
    """A bound of a figure, which `value` computes from a round: KeyError or ValueError if it was not measured."""

    what: str
    sign: str
    bound: float
    aim: float | None
    value: Callable[[Round], float]
    every_round: bool = False  # of a count of faults, where the worst round decides; else the median does
    corpus: str | None = None  # the only corpus that the bound is for

    def row(self, values: Sequence[float]) -> dict[str, Any]:
        """The bound against the value of each round: `verdict` says whether all rounds meet it, none does, or some."""
        value = max(values) if self.every_round else statistics.median(values)
        met, some = self._is_met(value), len({self._is_met(one) for one in values}) > 1
        verdict = NOISE if some and not self.every_round else "met" if met else "missed"
        return {"what": self.what, "value": value, "spread": _spread(values), "bound": f"{self.sign} {self.bound:g}",
                "aim": self.aim, "met": met, "verdict": verdict}  # fmt: skip

    def _is_met(self, value: float) -> bool:
        return value >= self.bound if self.sign == ">=" else value <= self.bound


def _ours(key: str, scenario: str, server: str = "flywheel") -> Callable[[Round], float]:
    return lambda r: float(r["servers"][server][scenario][key])


def _best_peer(r: Round) -> str:
    """The name of the peer with the most requests a second at c=64. Raises ValueError when none was measured."""
    rates = {name: r["servers"][name]["c64"]["rps"] for name in PEERS if "c64" in r["servers"].get(name, {})}
    return max(rates, key=lambda name: float(rates[name]))


def _short_p99(r: Round, scenario: str) -> float:
    return float(r["servers"]["flywheel"][scenario]["kinds"]["short"]["p99_ms"])


def _errors(r: Round) -> float:
    ours = [loads for name, loads in r["servers"].items() if name.startswith("flywheel") and loads]
    if not ours:
        raise ValueError("Flywheel was not measured")
    asked = [found["errors"] for name, found in r["labels"].items() if name.startswith("flywheel")]
    return float(sum(asked) + sum(load["errors"] for loads in ours for load in loads.values()))


def _over(key: str, scenario: str, peer: Callable[[Round], str]) -> Callable[[Round], float]:
    return lambda r: _ours(key, scenario)(r) / _ours(key, scenario, peer(r))(r)


BOUNDS = (
    Bound("c=64: times the encoder's in-process limit", ">=", 1.3, 1.8,
          lambda r: _ours("rps", "c64")(r) / r["limit_rps"]),
    Bound("c=64: times the best peer", ">=", 1.8, 2.5, _over("rps", "c64", _best_peer)),
    Bound("c=64: p99 over mosec's", "<=", 1, None, _over("p99_ms", "c64", lambda _: "mosec")),
    Bound("c=1: p50 over the encoder's in-process time of one text", "<=", 0.8, None,
          lambda r: _ours("p50_ms", "c1")(r) / r["limit_batch1_ms"]),
    Bound("mixed lengths: p99 of short texts over their p99 alone", "<=", 2, None,
          lambda r: _short_p99(r, "mixed") / _short_p99(r, ALONE)),
    Bound("32 texts a request: times the limit", ">=", 1.8, None,
          lambda r: _ours("rps", "batch32")(r) * MANY / r["limit_rps"]),
    Bound("Zipf with cache: times the limit", ">=", 2, None,
          lambda r: _ours("rps", "zipf", "flywheel_cache")(r) / r["limit_rps"]),
    Bound("recommendation, 100 cached candidates: p50 over one intent's at c=1", "<=", 3, None,
          lambda r: _ours("p50_ms", "recommendation", "flywheel_cache")(r) / _ours("p50_ms", "c1")(r)),
    Bound("accuracy on Banking77's test texts", ">=", 0.942, None,
          lambda r: float(r["labels"]["flywheel"]["accuracy"]), corpus="banking77"),
    Bound("accuracy, less the encoder's own in process", ">=", 0, None,
          lambda r: float(r["labels"]["flywheel"]["accuracy"] - r["encoder_accuracy"])),
    Bound("labels under load that differ from those alone", "<=", 0, None,
          lambda r: float(r["labels"]["flywheel"]["differ"]), every_round=True),
    Bound("Flywheel's failed requests", "<=", 0, None, _errors, every_round=True),
    Bound("memory of the whole server, MB (PSS)", "<=", 2500, None, lambda r: float(r["memory"]["flywheel"]["pss_mb"])),
    Bound("memory of the whole server, MB (RSS)", "<=", 2500, None, lambda r: float(r["memory"]["flywheel"]["rss_mb"])),
)  # fmt: skip


def within(rounds: Sequence[Round], value: Callable[[Round], float]) -> list[float]:
    """`value` of each round in which it was measured."""
    found = []
    for r in rounds:
        try:
            found.append(value(r))
        except (KeyError, ValueError):  # not measured
            continue
    return found


def summarize(
    rounds: Sequence[Round], facts: dict[str, Any], overload: dict[str, Any] | None, soak: dict[str, Any] | None
) -> dict[str, Any]:
    """The content of `var/bench.json`: `facts` as they are, then the figures."""
    names = dict.fromkeys(name for r in rounds for name, loads in r["servers"].items() if loads or name in r["labels"])
    bounds = [bound for bound in BOUNDS if bound.corpus in (None, facts["corpus"])]
    measured = {bound: within(rounds, bound.value) for bound in bounds}
    thresholds = [bound.row(values) for bound, values in measured.items() if values]
    return {
        **facts,
        "limit_rps": statistics.median(r["limit_rps"] for r in rounds),
        "limit_rps_spread": _spread([r["limit_rps"] for r in rounds]),
        "limit_batch1_ms": statistics.median(r["limit_batch1_ms"] for r in rounds),
        "servers": {name: _server(rounds, name) for name in names},
        "encoder_accuracy": rounds[0].get("encoder_accuracy"),
        "best_peer": _median_best_peer(rounds),
        "labels": {name: found for name in names if (found := _labels(rounds, name))},
        "overload": overload,
        "soak": soak,
        "thresholds": thresholds + _open_loop(overload, soak, facts.get("target_s", 1.0)),
        "not_measured": [bound.what for bound, values in measured.items() if not values],
        "rounds": list(rounds),
    }


def _server(rounds: Sequence[Round], name: str) -> dict[str, Any]:
    memory = [r["memory"][name] for r in rounds if name in r["memory"]]
    sizes = {key: statistics.median(m[key] for m in memory) for key in ("rss_mb", "pss_mb")} if memory else {}
    scenarios = dict.fromkeys(scenario for r in rounds for scenario in r["servers"].get(name, {}))
    return {scenario: _scenario(rounds, name, scenario) | sizes for scenario in scenarios}


def _scenario(rounds: Sequence[Round], name: str, scenario: str) -> dict[str, Any]:
    measured = [r for r in rounds if scenario in r["servers"].get(name, {})]
    loads = [r["servers"][name][scenario] for r in measured]
    result: dict[str, Any] = {key: statistics.median(load[key] for load in loads) for key in _FIGURES}
    result["errors"] = sum(load["errors"] for load in loads)
    result |= {"rps_spread": _spread([load["rps"] for load in loads]),
               "p50_spread": _spread([load["p50_ms"] for load in loads])}  # fmt: skip
    if early := [load["early"] for load in loads if "early" in load]:
        result |= {"early": statistics.median(early), "early_spread": _spread(early)}
    if scenario in _OF_THE_MODEL:
        texts = MANY if scenario == "batch32" else 1
        shares = [load["rps"] * texts / r["limit_rps"] for load, r in zip(loads, measured, strict=True)]
        result |= {"texts_per_s": result["rps"] * texts, "share_of_limit": statistics.median(shares),
                   "share_spread": _spread(shares)}  # fmt: skip
    kinds = dict.fromkeys(kind for load in loads for kind in load.get("kinds", {}))
    if kinds:
        result["kinds"] = {
            kind: {key: statistics.median(load["kinds"][kind][key] for load in loads if kind in load["kinds"])
                   for key in _FIGURES[1:]}
            for kind in kinds
        }  # fmt: skip
    return result


def _median_best_peer(rounds: Sequence[Round]) -> str | None:
    """The peer with the highest median at c=64, so that a report can name it."""
    medians = {name: _scenario(rounds, name, "c64")["rps"] for name in PEERS
               if any("c64" in r["servers"].get(name, {}) for r in rounds)}  # fmt: skip
    return max(medians, key=lambda name: float(medians[name])) if medians else None


def _labels(rounds: Sequence[Round], name: str) -> dict[str, Any]:
    found = [r["labels"][name] for r in rounds if name in r["labels"]]
    total: dict[str, Any] = {key: sum(one[key] for one in found) for key in ("asked", "differ", "errors")}
    if not total["asked"]:
        return {}
    for key in ("as_encoder", "accuracy"):
        if values := [one[key] for one in found if key in one]:
            total |= {key: statistics.median(values), f"{key}_spread": _spread(values)}
    return total | {"share_differ": total["differ"] / total["asked"]}


def _spread(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]


def _open_loop(overload: dict[str, Any] | None, soak: dict[str, Any] | None, target_s: float) -> list[dict[str, Any]]:
    rows = []
    if overload:
        failed = overload["lost"] + overload["hung"] + overload["other"]
        p99 = overload["accepted_p99_ms"]
        rows = [
            _at_most(
                "overload: accepted p99 over the target", 2, float("inf") if p99 is None else p99 / 1000 / target_s
            ),
            _at_most("overload: p99 of a 503, ms", 50, overload["shed_p99_ms"] or 0.0),
            _at_most("overload: lost, hung or answered otherwise", 0, failed),
        ]
    if soak:
        growth = soak["growth"]
        rows += [_at_most("soak: growth of memory", 0.03, float("inf") if growth is None else growth),
                 _at_most("soak: errors", 0, soak["errors"])]  # fmt: skip
    return rows


def _at_most(what: str, bound: float, value: float) -> dict[str, Any]:
    return Bound(what, "<=", bound, None, lambda _: value).row([value])


def print_report(report: dict[str, Any], console: Console) -> None:
    console.print(_loads(report))
    if report["labels"]:
        console.print(_answers(report))
    console.print(_bounds(report))
    for what in report["not_measured"]:
        console.print(f"not measured: {what}", highlight=False, markup=False)
    if report["best_peer"]:
        console.print(f"the best peer at c=64: {TITLES[report['best_peer']]}", highlight=False, markup=False)
    for number, drift in enumerate((r["limit_drift"] for r in report["rounds"]), 1):
        if drift > STEADY:
            console.print(
                f"round {number} was disturbed: the limit before Flywheel and after it differ {drift:.1f} times"
            )
    if (lag := (report["overload"] or {}).get("client_lag_p99_ms") or 0) > LATE_MS:
        console.print(f"overload: the client itself was late, by {lag:.0f} ms (p99); its times include that")
    for name, problem in report["problems"].items():
        console.print(f"not all measured: {TITLES[name]}: {problem.splitlines()[0]}", highlight=False, markup=False)


def _loads(report: dict[str, Any]) -> Table:
    what = f"{report['machine']}; texts: {report['texts']}; medians of {len(report['rounds'])} rounds"
    table = Table(title=f"{what}\nmodel: {report['model']}")
    table.add_column("server and scenario", no_wrap=True)
    for column in ("requests/s", "min-max", "times\nthe limit", "p50 ms", "p95 ms", "p99 ms", "errors", "early",
                   "accuracy", "PSS MB"):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    spread = "{:.0f}-{:.0f}".format(*report["limit_rps_spread"])
    in_process = f"[bold]the encoder in process, batch {report['limit_setting']['batch']}[/]"
    table.add_row(in_process, f"{report['limit_rps']:.0f}", spread, "1.00", "", "", "", "", "",
                  percent(report["encoder_accuracy"]))  # fmt: skip
    table.add_row("  one text, one thread", "", "", "", f"{report['limit_batch1_ms']:.2f}", end_section=True)
    for name, scenarios in report["servers"].items():
        accuracy = percent(report["labels"].get(name, {}).get("accuracy"))
        table.add_row(f"[bold]{TITLES[name]}[/]", *[""] * 8, accuracy)
        for scenario, load in scenarios.items():
            table.add_row(
                "  " + title(scenario),
                f"{load['rps']:.0f}", "{:.0f}-{:.0f}".format(*load["rps_spread"]),
                f"{load['share_of_limit']:.2f}" if "share_of_limit" in load else "",
                *(f"{load[key]:.2f}" for key in _FIGURES[1:]), str(load["errors"]),
                percent(load.get("early"), 0), "", f"{load.get('pss_mb', 0):.0f}",
            )  # fmt: skip
            for kind, figures in load.get("kinds", {}).items():
                table.add_row(f"    {kind}", "", "", "", *(f"{figures[key]:.2f}" for key in _FIGURES[1:]))
        table.add_section()
    return table


def _answers(report: dict[str, Any]) -> Table:
    table = Table(title=f"answers to {report['texts']}, under load at c=64")
    table.add_column("server", no_wrap=True)
    for column in ("accuracy", "min-max", "as the encoder's\nin process", "differ from\nthose alone", "failed"):
        table.add_column(column, justify="right", no_wrap=True)
    if report["encoder_accuracy"] is not None:
        table.add_row("the encoder in process", percent(report["encoder_accuracy"], 2), end_section=True)
    for name, found in report["labels"].items():
        spread = "-".join(percent(end, 2) for end in found.get("accuracy_spread", []))
        table.add_row(TITLES[name], percent(found.get("accuracy"), 2), spread, percent(found["as_encoder"], 2),
                      f"{found['differ']} of {found['asked']}", str(found["errors"]))  # fmt: skip
    return table


def percent(share: float | None, digits: int = 1) -> str:
    return "" if share is None else f"{share:.{digits}%}"


def _bounds(report: dict[str, Any]) -> Table:
    table = Table("", "what", "value", "min-max", "bound", "aim", title="bounds")
    for row in report["thresholds"]:
        colour = "yellow" if row["verdict"] == NOISE else "green" if row["met"] else "red"
        value, spread = figure(row["value"]), "{}-{}".format(*map(figure, row["spread"]))
        table.add_row(f"[{colour}]{verdict(row)}[/]", row["what"], value, spread, row["bound"],
                      "" if row["aim"] is None else f"{row['aim']:g}")  # fmt: skip
    return table


def verdict(row: dict[str, Any]) -> str:
    """The verdict of a row of `thresholds`; within the noise, with what the median says, as `--check` goes by it."""
    if row["verdict"] == NOISE:
        return f"{NOISE}, median {'meets' if row['met'] else 'misses'} it"
    return "met" if row["met"] else "MISSED"


def figure(value: float) -> str:
    """The value with at least three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
