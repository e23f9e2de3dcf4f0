"""Reports of tweaks: read from living processes alone, and never in the way of the process that reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve.rayserve import reports


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_file", None)
    monkeypatch.setattr(reports, "_recorded", set())


def test_a_process_reports_what_it_recorded_before_and_after_its_start(tmp_path: Path) -> None:
    reports.record("bypass")
    reports.start(str(tmp_path / "metrics"), "replica")
    reports.record("http_server")
    assert list(reports.read(str(tmp_path / "metrics"))) == [("replica", frozenset({"bypass", "http_server"}))]


def test_a_report_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("not a folder")
    reports.start(str(tmp_path / "metrics"), "replica")
    reports.record("bypass")
    assert list(reports.read(str(tmp_path / "metrics"))) == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_reports_of_processes_that_ended_go_and_torn_ones_are_passed_over(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    old = tmp_path / f"tweaks_haproxy_{ended.pid}.json"
    old.write_text(json.dumps(["haproxy"]))
    (tmp_path / f"tweaks_replica_{os.getpid()}.json").write_text('["byp')
    assert list(reports.read(str(tmp_path))) == []
    assert not old.exists()
