"""What `python -m export.costs` prints, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from export.costs import main
from tests.helpers.tiny_readers import SURE, UNSURE, tiny_bundle


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["costs", *map(str, arguments)])
    main()


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join([*SURE, UNSURE] * 100))
    return file


def test_both_readers_are_measured(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, tiny_bundle(tmp_path / "bundle").path, texts)
    head, _, columns, *rows = capsys.readouterr().out.splitlines()
    assert head == "256 texts of 3.7 tokens, 67% answered early"
    assert columns.split("  ")[-1].strip() == "share"
    for row, size in zip(rows, ("1", "64"), strict=True):
        *_, linear, encoder, share = row.split()
        assert row.split()[0] == size
        assert float(share.rstrip("%")) == pytest.approx(100 * float(linear) / float(encoder), rel=0.2)


def test_one_reader_is_not_compared(tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, option in (("a", "linear"), ("b", "encoder")):
        with pytest.raises(SystemExit):
            run(monkeypatch, tiny_bundle(tmp_path / name, **{option: False}).path, texts)  # type: ignore[arg-type]
