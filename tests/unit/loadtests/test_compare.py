"""The comparison's own arithmetic: ratios within rounds, what --check objects to, its options. No timing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import compare
from loadtests.compare import (
    FIGURES,
    MAX_C1_RATIO,
    MIN_C64_RATIO,
    ComparedRound,
    Figures,
    figures,
    missed,
    parse,
    ratios,
)
from loadtests.peers import PeerError

FIRST: Figures = {"c1": 2.0, "c64": 800.0, "batch32": 900.0, "pss_mb": 1500.0, "rss_mb": 2000.0, "ready_s": 10.0,
                  "errors": 0}  # fmt: skip


def _round(speed: float = 1.0, **times: float) -> ComparedRound:
    """A round on a machine of this speed, whose new side has these times the old one's figures."""
    old = FIRST | {"c1": FIRST["c1"] / speed, "c64": FIRST["c64"] * speed}
    return {"old": old, "new": {key: value * times.get(key, 1) for key, value in old.items()}}


def test_ratios_are_taken_within_a_round_so_that_drift_cancels() -> None:
    rounds = [_round(speed, c64=1.1, c1=0.9) for speed in (1, 0.5, 2)]
    assert ratios(rounds, "c64") == pytest.approx([1.1] * 3)
    assert ratios(rounds, "c1") == pytest.approx([0.9] * 3)


def test_a_round_that_lacks_a_side_or_whose_old_side_answered_nothing_has_no_ratio() -> None:
    rounds = [{"old": FIRST}, {"new": FIRST}, {}, {"old": FIRST | {"c64": 0.0}, "new": FIRST}, _round(c64=1.2)]
    assert ratios(rounds, "c64") == pytest.approx([1.2])


def test_the_check_holds_its_bounds_against_the_median() -> None:
    assert missed([_round(c64=MIN_C64_RATIO + 0.001, c1=MAX_C1_RATIO - 0.001)]) == []
    assert missed([_round(c64=0.5, c1=2), _round(), _round()]) == []
    slow = [_round(c64=0.96), _round(c64=0.9), _round()]
    assert missed(slow) == ["one text, c=64: requests/s: new/old is 0.960, < 0.97"]
    assert missed([_round(c1=1.06)]) == ["one text, c=1: p50, ms: new/old is 1.060, > 1.05"]


def test_the_check_objects_to_what_failed_or_was_not_measured() -> None:
    failing = _round()
    failing["new"]["errors"] = 3
    assert missed([failing]) == ["new: 3 failed requests"]
    assert missed([_round(), {"old": FIRST}]) == ["new: not measured in 1 of 2 rounds"]
    assert [problem.rpartition(": ")[2] for problem in missed([{"new": FIRST}])] == ["not measured"] * 2


def test_figures_count_texts_and_all_errors() -> None:
    loads = {name: {"rps": 30.0, "p50_ms": 2.0, "errors": 1} for name in compare.SCENARIOS}
    found = figures(loads, {"pss_mb": 1.0, "rss_mb": 2.0}, 9.0)
    assert (found["c1"], found["c64"], found["batch32"], found["errors"]) == (2, 30, 960, 3)
    assert found.keys() == FIGURES.keys() | {"errors"}


def test_the_table_names_every_figure_and_the_range_of_its_ratio() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(compare.table([_round(c64=0.9), _round(c64=1.2), {"old": FIRST}]))
    shown = console.export_text()
    assert all(title in shown for title, _ in FIGURES.values())
    assert "0.900-1.200" in shown


def test_a_setting_is_a_key_and_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = parse(["/old", "--environment-new", "A=1=2", "--environment-new", "B="])
    assert (chosen.environment_old, chosen.environment_new) == ([], [("A", "1=2"), ("B", "")])
    with pytest.raises(SystemExit):
        parse(["/old", "--environment-old", "A"])
    assert "'A' is not KEY=VALUE" in capsys.readouterr().err


def test_a_checkout_without_its_own_environment_is_told_how_to_make_one(tmp_path: Path) -> None:
    side = compare.Side("old", tmp_path, {})
    with pytest.raises(PeerError, match="There is no checkout"):
        compare.check_installed(side)
    (tmp_path / "pyproject.toml").touch()
    with pytest.raises(PeerError, match=r"has no \.venv\. Run there: make \.venv/\.serve"):
        compare.check_installed(side)
