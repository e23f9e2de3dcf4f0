"""`flywheel review`: in the terminal, and as a file that `flywheel feedback` takes back."""

from __future__ import annotations

import csv
from pathlib import Path

import orjson
import pytest

from models.feedback.store import Store
from serve.cli.corrections import read_corrections
from tests.helpers.command import Command
from tests.helpers.store_fixtures import made, prediction


@pytest.fixture
def home(tmp_path: Path) -> Path:
    store = Store(f"sqlite:///{tmp_path / 'feedback.db'}")
    store.predictions.log([prediction(1, "=cmd|' /C calc'!A0", "where is my [red]parcel[/red]\x1b[31m")])
    store.close()
    return tmp_path


def test_texts_to_label_are_listed(run: Command, home: Path) -> None:
    shown = run("review", "intent", home=home)
    assert shown.returncode == 0, shown.stderr
    assert "[red]parcel[/red]" in shown.stdout
    assert "\x1b[31m" not in shown.stdout
    assert "2 of 2 logged texts without a label" in shown.stdout


def test_a_file_that_was_filled_in_is_a_file_of_corrections(run: Command, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "todo.csv"
    assert run("review", "intent", "--out", str(file), home=home).returncode == 0
    assert read_corrections(file) == []
    with file.open(encoding="utf-8", newline="") as lines:
        header, *rows = csv.reader(lines)
    assert header == ["id", "index", "label", "source", "consent", "#text", "#prediction", "#why"]
    assert all(row[5][:1] not in "=+-@" for row in rows)
    rows[1][2] = "track_order"
    with file.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([header, *rows])
    (line,) = read_corrections(file)
    assert orjson.loads(line.item) == {
        "id": made(1), "index": int(rows[1][1]), "label": "track_order", "source": "review", "consent": True,
    }  # fmt: skip


def test_an_empty_log_and_a_ranking_have_nothing(run: Command, tmp_path: Path) -> None:
    assert "0 of 0" in run("review", "sentiment", home=tmp_path / "empty").stdout
    refused = run("review", "recommendation", home=tmp_path / "empty")
    assert (refused.returncode, "ranks items" in refused.stderr) == (1, True)
