"""A short load test by Locust against a real server. Its times depend on the machine, so they are left out."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.locust.scenarios import SCENARIOS
from tests.helpers.command import ROOT
from tests.helpers.server import Server

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None, reason="needs Locust: pip install 'flywheel-serve[load]'"
)


@pytest.mark.parametrize("scenario", ["product_page", pytest.param("market_open", marks=pytest.mark.slow)])
def test_no_request_of_a_scenario_fails(server: Server, tmp_path: Path, scenario: str) -> None:
    done = subprocess.run(
        [sys.executable, "loadtests/locust/run.py", "--host", server.url, "--scenario", scenario, "--users", "6",
         "--minutes", "0.17", "--output", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    missed = [line for line in done.stdout.splitlines() if line.startswith("MISSED ") and ": " in line]
    assert [line for line in missed if not line.endswith(" ms are allowed")] == [], done.stdout + done.stderr
    assert done.returncode == (1 if missed else 0), done.stdout + done.stderr
    assert "versions of " in done.stdout
    assert "answer cache of " in done.stdout
    assert "<html" in (tmp_path / f"{scenario}.html").read_text()
    assert (tmp_path / f"{scenario}_stats.csv").read_text().count("\n") > len(SCENARIOS[scenario].thresholds)
