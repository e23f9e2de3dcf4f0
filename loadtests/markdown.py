"""The report as Markdown tables, ready for docs/benchmarks.md and README."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtests.report import figure, percent, verdict
from loadtests.servers import TITLES
from loadtests.workloads import MANY


def tables(report: dict[str, Any]) -> str:
    """What was measured on, a row for each server, a row for each bound."""
    what = f"{report['machine']}; {report['versions']}; {report['texts']}; medians of {len(report['rounds'])} rounds."
    return "\n\n".join([what, _servers(report), _bounds(report)]) + "\n"


def _servers(report: dict[str, Any]) -> str:
    columns = (
        "", "64 connections, requests/s", "times the limit", "p99, ms", "1 connection, p50, ms",
        f"{MANY} texts a request, texts/s", "accuracy", "labels as the encoder's", "memory, MB (PSS)",
    )  # fmt: skip
    in_process = [f"{report['limit_rps']:,.0f} texts/s", "1", "", f"{report['limit_batch1_ms']:.1f}", "",
                  percent(report["encoder_accuracy"]), "", ""]  # fmt: skip
    servers = {name: loads for name, loads in report["servers"].items() if "c64" in loads}
    fastest = sorted(servers, key=lambda name: -float(servers[name]["c64"]["rps"]))
    rows = [_server(report, name) for name in fastest]
    return _table(columns, [["the encoder in process, no HTTP", *in_process], *rows])


def _server(report: dict[str, Any], name: str) -> list[str]:
    loads, labels = report["servers"][name], report["labels"].get(name, {})
    c64 = loads["c64"]
    early = f"; {percent(c64['early'], 0)} early" if "early" in c64 else ""
    return [
        f"**{TITLES[name]}**" if name.startswith("flywheel") else TITLES[name],
        f"{c64['rps']:,.0f}",
        f"{c64['share_of_limit']:.2f} ({_range(c64['share_spread'])}){early}",
        f"{c64['p99_ms']:.0f}",
        f"{loads['c1']['p50_ms']:.1f}" if "c1" in loads else "",
        f"{loads['batch32']['texts_per_s']:,.0f}" if "batch32" in loads else "",
        percent(labels.get("accuracy")),
        percent(labels.get("as_encoder")),
        f"{c64['pss_mb']:,.0f}" if "pss_mb" in c64 else "",
    ]


def _bounds(report: dict[str, Any]) -> str:
    rows = [
        [row["what"], row["bound"], "" if row["aim"] is None else f"{row['aim']:g}",
         f"{figure(row['value'])} ({_range(row['spread'])})", verdict(row)]
        for row in report["thresholds"]
    ]  # fmt: skip
    return _table(("what", "bound", "aim", "median (min to max)", ""), rows)


def _range(spread: Sequence[float]) -> str:
    return "{} to {}".format(*map(figure, spread))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
