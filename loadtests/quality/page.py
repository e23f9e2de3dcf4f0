"""The sections as Markdown: docs/quality.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.quality.figures import Figure
from loadtests.quality.sections import Section

NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "calibration_error": "calibration error (15 bins)",
    "calibration_error.by_chance": "the same of exact scores, by chance",
    "early.share": "answered early",
    "in_scope.kept": "in scope: kept",
    "out_of_scope.caught": "out of scope: caught",
    "balanced": "mean of kept and caught",
    "auroc": "AUROC of the best intent's score",
    **{
        f"confidence.{word}.{what}": f'`"confidence": "{word}"`: {"share" if what == "share" else "right"}'
        for word in ("high", "medium", "low")
        for what in ("share", "precision")
    },
}
_POINTS = {"macro_f1", "auroc"}  # from 0 to 1; the others are shares, in percent
_HOW = """\
Every text is asked of a running server over HTTP, 64 in a request, answer cache and early answers as in a default
configuration. A figure is the mean over the seeds of the training. Its 95 % interval is over the texts alone: Wilson's
for shares, a basic bootstrap (1,000 draws, the same texts for all seeds) for the rest; what the seed changes is in the
columns by seed. The calibration error is the mean distance between an answer's score and the share of right answers
among those of about that score ([Guo et al., 2017](https://arxiv.org/abs/1706.04599)); with few texts it is above zero
by chance even where scores are exact, and the row below it says how far (mean, and 95 % of draws)."""


@dataclass(frozen=True)
class Run:
    """What the figures were measured on, for the head of the page."""

    command: str
    commit: str
    machine: str
    versions: str
    """with the date"""
    minutes: float
    training_minutes: float
    trained: int
    reused: int
    """trainings of earlier runs with the same corpus, command and code"""


@dataclass(frozen=True)
class Command:
    """Another command of loadtests/quality."""

    file: str
    what: str


def page(run: Run, sections: Sequence[Section], others: Sequence[Command], plot: str | None) -> str:
    """The whole document; `plot` is the name of the plot's file beside it."""
    parts = ["# Quality of the served models", _head(run), _HOW, _summary(sections)]
    if plot:
        parts.append(f"![calibration, accuracy by coverage, and out of scope]({plot})")
        parts.append(_legend(sections))
    parts += [_section(section) for section in sections]
    parts.append(_others(others))
    return "\n\n".join(parts) + "\n"


def missed_bounds(sections: Sequence[Section]) -> list[str]:
    """A sentence for each figure that misses its bound."""
    return [
        f"{section.title}: {NAMES[figure.name]} is {_value(figure, figure.value)}, the bound {_limit(section, figure)}"
        for section in sections
        for figure in section.figures
        if not _is_met(section, figure)
    ]


def other_commands(folder: Path, without: Path) -> list[Command]:
    """The commands in a folder, each with the first paragraph of its docstring, but for one."""
    found = []
    for file in sorted(folder.glob("*.py")):
        source = file.read_text(encoding="utf-8")
        said = ast.get_docstring(ast.parse(source))
        if file != without and said and re.search(r"^import argparse$", source, re.M):
            first = " ".join(said.split("\n\n")[0].split())
            found.append(Command(file.name, first))
    return found


def _head(run: Run) -> str:
    took = f"{run.minutes:.0f} minutes" if run.minutes >= 2 else f"{60 * run.minutes:.0f} seconds"
    if run.trained:
        took += f", {run.training_minutes:.0f} minutes of these to train {run.trained} models"
    if run.reused:
        took += f"; {run.reused} models were trained by earlier runs with the same corpora, seeds and code"
    return (
        f"Written by `{run.command}`; do not edit it. All figures are of that one run: "
        f"commit {run.commit}; {run.machine}; {run.versions}. It took {took}."
    )


def _summary(sections: Sequence[Section]) -> str:
    shown = ("accuracy", "macro_f1", "calibration_error", "balanced")
    rows = []
    for section in sections:
        if section.absent:
            continue
        by_name = {figure.name: figure for figure in section.figures}
        cells = [_value(by_name[name], by_name[name].value) if name in by_name else "" for name in shown]
        rows.append([f"[{section.title}](#{anchor(section.title)})", *cells, _verdict(section)])
    return _table(["", *(NAMES[name] for name in shown), "bounds"], rows) if rows else "Nothing was measured."


def anchor(title: str) -> str:
    """GitHub's anchor of a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def _verdict(section: Section) -> str:
    if not section.bounds:
        return "none set"
    missed = [NAMES[figure.name] for figure in section.figures if not _is_met(section, figure)]
    return f"missed: {', '.join(missed)}" if missed else "met"


def _legend(sections: Sequence[Section]) -> str:
    several = any(len(section.runs) > 1 for section in sections)
    return (
        "First the share of right answers among those of about the same score; a point below the line is too sure, and "
        "its area is its share of the answers. Then the accuracy of the surest answers, if the others were left to "
        "people; and what out of scope would be caught, and in scope kept, with other bounds on the score than the "
        "served rule, which is the dot." + (" Answers of all seeds are taken together." if several else "")
    )


def _section(section: Section) -> str:
    title = f"## {section.title}"
    if section.absent:
        return f"{title}\n\nNot measured: {section.absent}."
    seeds = [f"seed {seed}" for seed in section.seeds] if len(section.seeds) > 1 else []
    rows = []
    for figure in section.figures:
        of_runs = (
            [_value(figure, value) for value in figure.by_run]
            if len(figure.by_run) == len(seeds)
            else [""] * len(seeds)
        )
        interval = f"{_value(figure, figure.low)} to {_value(figure, figure.high)}"
        rows.append([NAMES[figure.name], _value(figure, figure.value), interval, f"{figure.texts:,}", *of_runs,
                     _bound(section, figure)])  # fmt: skip
    table = _table(["", "figure", "95 % interval", "texts", *seeds, "bound"], rows)
    commands = ", then ".join(f"`{command}`" for command in section.commands)
    trained = f" Seed {', '.join(map(str, section.seeds))}." if section.seeds else ""
    versions = "; ".join(dict.fromkeys(section.served))
    return f"{title}\n\n{section.about}{trained}\n\n{table}\n\nCommand: {commands}. Served: {versions}."


def _others(others: Sequence[Command]) -> str:
    rows = [[f"`python loadtests/quality/{one.file}`", one.what] for one in others]
    return (
        "## Other commands\n\nEach has `--help`. Their figures are in the documents and decisions that name them.\n\n"
        + _table(["command", "what it measures"], rows)
    )


def _value(figure: Figure, value: float) -> str:
    return f"{value:.3f}" if figure.name in _POINTS else f"{100 * value:.1f} %"


def _bound(section: Section, figure: Figure) -> str:
    if figure.name not in section.bounds:
        return ""
    return f"{_limit(section, figure)}, {'met' if _is_met(section, figure) else '**missed**'}"


def _limit(section: Section, figure: Figure) -> str:
    return f"{'at most' if _is_error(figure) else 'at least'} {_value(figure, section.bounds[figure.name])}"


def _is_met(section: Section, figure: Figure) -> bool:
    bound = section.bounds.get(figure.name)
    if bound is None:
        return True
    return figure.value <= bound if _is_error(figure) else figure.value >= bound


def _is_error(figure: Figure) -> bool:
    return figure.name.endswith("error")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 2), "---"], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
