"""Gate reports: kept beside the releases, and never in the way of a release."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.releases.gate_reports import read_gate_report, write_gate_report


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_gate_report(tmp_path, "intent", "2", b'{"accepted": true}')
    assert read_gate_report(tmp_path, "intent", "2") == {"accepted": True}


@pytest.mark.parametrize("version", ["1", "../../releases/intent", "", "\u0662"])
def test_there_is_none_of_what_has_no_report(tmp_path: Path, version: str) -> None:
    assert read_gate_report(tmp_path, "intent", version) is None


def test_a_torn_report_is_none(tmp_path: Path) -> None:
    write_gate_report(tmp_path, "intent", "2", b'{"accepted": tr')
    assert read_gate_report(tmp_path, "intent", "2") is None


def test_a_disk_that_does_not_take_it_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "gates").write_text("a file where a folder should be")
    write_gate_report(tmp_path, "intent", "2", b"{}")
    assert "in MLflow alone" in caplog.text
