"""`flywheel topics check` shows who writes a file of topics what it catches."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command import Command


def test_what_the_topics_catch(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    file, texts = tmp_path / "topics.yaml", tmp_path / "texts.csv"
    file.write_text("oil: [crude, brent]\ngas: [crude, LNG]\n")
    texts.write_text("text\nCrude up\nOil [and] crude down\nA shop\x1b[2J opens\n\n7 LNG ships\n")
    done = run("topics", "check", str(file), "--texts", str(texts))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    for part in (
        "2 topics, 6 words",
        "note: 'crude' is a word of 'oil' (line 1), 'gas' (line 2)",
        "│ gas │ 3 │ 75.0% │ crude 2, LNG 1 │ Crude up │",
        "│ oil │ 2 │ 50.0% │ crude 2, oil 1 │ Crude up │",
        "Oil [and] crude down",
        "│ other │ 1 │ 25.0% │ │ A shop [2J opens │",
        "4 texts; 75.0% have a topic",
        "together: 'gas' and 'oil' in 2 texts, 67% of 'gas' and 100% of 'oil'",
        "never found: the keyword 'brent' of 'oil' (line 1)",
        "never found: the name 'gas' of 'gas' (line 2)",
    ):
        assert part in said
    assert "\x1b" not in done.stdout, "a text cannot control the terminal"
    alone = run("topics", "check", str(file))
    assert alone.returncode == 0
    assert "Give --texts FILE" in alone.stdout


def test_a_fault_is_told_as_the_server_would(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "topics.yaml"
    file.write_text("oil: [crude]\nOIL: ['']\n")
    done = run("topics", "check", str(file))
    assert done.returncode == 1
    assert "line 2: the topic 'OIL' is in line 1 already" in done.stderr
    file.write_text("oil: [crude]\n")
    (tmp_path / "empty.csv").write_text("text\n")
    assert "there are no texts" in run("topics", "check", str(file), "--texts", str(tmp_path / "empty.csv")).stderr
    (tmp_path / "other.csv").write_text("headline\na\n")
    done = run("topics", "check", str(file), "--texts", str(tmp_path / "other.csv"))
    assert "the header has no column 'text'" in done.stderr
