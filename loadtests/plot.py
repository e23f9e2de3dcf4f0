"""Draws docs/benchmark.svg: requests a second at 64 connections and median latency at one, a bar for each server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadtests.servers import TITLES

INK = "#7d8590"  # readable on a white page and on a dark one
OURS, THEIRS = "#e8590c", "#8aa4c8"
STYLE = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK) | {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "flywheel",
}  # fmt: skip
"""of every plot in docs/; the salt makes the same figures the same file"""


def draw(report: dict[str, Any], file: Path) -> None:
    """Write the plot of `report` to `file`. Raises ModuleNotFoundError without matplotlib (extra `train`)."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    servers = {name: loads for name, loads in report["servers"].items() if "c64" in loads and "c1" in loads}
    names = sorted(servers, key=lambda name: servers[name]["c64"]["rps"])
    labels = [TITLES[name] for name in names]
    colours = [OURS if name == "flywheel" else THEIRS for name in names]
    with pyplot.rc_context(STYLE):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.5, 0.9 + 0.42 * len(names) + 0.9), sharey=True)
        panels = (
            (left, "right", "rps", "{:.0f}", report["limit_rps"], "requests/s, 64 connections"),
            (right, "left", "p50_ms", "{:.1f}", report["limit_batch1_ms"], "median ms, 1 connection"),
        )
        for axes, side, key, number, limit, title in panels:
            scenario = "c64" if key == "rps" else "c1"
            values = [servers[name][scenario][key] for name in names]
            spread = "rps_spread" if key == "rps" else "p50_spread"
            ends = [servers[name][scenario][spread] for name in names]
            errors = [[v - low for v, (low, _) in zip(values, ends, strict=True)],
                      [high - v for v, (_, high) in zip(values, ends, strict=True)]]  # fmt: skip
            axes.barh(labels, values, color=colours, xerr=errors, error_kw={"ecolor": INK, "elinewidth": 1})
            largest = max([limit, *(high for _, high in ends)])
            for at, (value, (_, high)) in enumerate(zip(values, ends, strict=True)):
                axes.text(high + largest * 0.015, at, number.format(value), va="center")
            axes.axvline(limit, color=INK, linestyle="--", linewidth=1)
            axes.text(limit, len(names) - 0.45, f"in process {number.format(limit)}", ha=side, va="bottom")
            axes.set_xlim(0, largest * 1.12)
            axes.set_xlabel(title)
        what = f"medians of {len(report['rounds'])} rounds with their range"
        figure.text(0.01, 0.015, f"{report['machine']}; {report['texts']}; {what}\n{report['versions']}", fontsize=7)
        figure.tight_layout(rect=(0, 0.1, 1, 1))
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
