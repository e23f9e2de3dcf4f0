"""Draws docs/quality.svg: calibration of each model, accuracy by coverage, and what is caught out of scope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.plot import INK, OURS, STYLE
from loadtests.quality.figures import Answers, coverage_curve, reliability, scope_curve
from loadtests.quality.sections import Section

COLOURS = (OURS, "#3b82c4", "#2f9e6e", "#a15cc4", "#c49a1a")
_COLUMNS = 4
_LARGEST = 260.0  # area of a point with all answers, in square points
_MIN_COVERAGE = 0.05  # of fewer, the accuracy is chance


def draw(sections: Sequence[Section], file: Path) -> None:
    """Write the plot of all sections that were measured. Raises ModuleNotFoundError without matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    measured = [section for section in sections if section.runs]
    scoped = [section for section in measured if section.outside]
    panels = len(measured) + 1 + bool(scoped)
    rows = math.ceil(panels / _COLUMNS)
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(rows, _COLUMNS, figsize=(11, 2.9 * rows), squeeze=False)
        axes = iter(grid.flat)
        for section, colour in zip(measured, COLOURS, strict=False):
            _reliability(next(axes), section, colour)
        _coverage(next(axes), measured)
        if scoped:
            _scope(next(axes), measured)
        for empty in axes:
            empty.set_axis_off()
        figure.tight_layout()
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)


def together(runs: Sequence[Answers]) -> Answers:
    """The answers of all runs, one after another."""
    return Answers(*(np.concatenate([getattr(run, one.name) for run in runs]) for one in fields(Answers)))


def _reliability(axes: Any, section: Section, colour: str) -> None:
    scores, right, counts = reliability(together(section.answerable))
    axes.plot([0, 100], [0, 100], color=INK, linestyle="--", linewidth=1)
    axes.scatter(
        100 * scores, 100 * right, s=6 + _LARGEST * counts / counts.sum(), color=colour, alpha=0.8, clip_on=False
    )
    axes.set_title(_short(section), fontsize=9)
    axes.set_xlabel("score, %")
    axes.set_ylabel("right, %")
    axes.set_xlim(0, 102)
    axes.set_ylim(0, 102)


def _coverage(axes: Any, measured: Sequence[Section]) -> None:
    for section, colour in zip(measured, COLOURS, strict=False):
        coverage, accuracy = coverage_curve(together(section.answerable))
        shown = coverage >= _MIN_COVERAGE
        axes.plot(100 * coverage[shown], 100 * accuracy[shown], color=colour, linewidth=1.2, label=_short(section))
    axes.set_title("accuracy of the surest answers", fontsize=9)
    axes.set_xlabel("answered, % of the texts")
    axes.set_ylabel("right, %")
    axes.legend(fontsize=6.5, frameon=False, loc="lower left")


def _scope(axes: Any, measured: Sequence[Section]) -> None:
    for section, colour in zip(measured, COLOURS, strict=False):
        if not section.outside:
            continue
        run, outside = together(section.runs), np.concatenate(list(section.outside))
        kept, caught = scope_curve(run, outside)
        axes.plot(100 * kept, 100 * caught, color=colour, linewidth=1.2, label=_short(section))
        served = 100 * (~run.handed[~outside]).mean(), 100 * run.handed[outside].mean()
        axes.scatter(*served, color=colour, s=30, zorder=3)
    axes.set_title("out of scope", fontsize=9)
    axes.set_xlabel("in scope: kept, %")
    axes.set_ylabel("out of scope: caught, %")
    axes.set_xlim(50, 101)
    axes.legend(fontsize=6.5, frameon=False, loc="lower left")


def _short(section: Section) -> str:
    return section.title.removeprefix("Out of scope: ").removeprefix("The ")
