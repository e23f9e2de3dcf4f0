"""The rules of deploy/prometheus/ are Prometheus's, alert where they should, and use series that Flywheel has."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from serve.metrics import OpinionMetrics
from tests.helpers.command import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus)"
)


@needs_promtool
@pytest.mark.parametrize(
    "arguments", [["check", "rules", "opinion.rules.yml"], ["test", "rules", "opinion.rules.test.yml"]]
)
def test_promtool_accepts(arguments: list[str]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_name_series_that_the_server_has() -> None:
    registry = CollectorRegistry()
    OpinionMetrics(["airlines"], ["negative"], registry).negative("airlines", 1, 1)
    series = set(re.findall(r"^(flywheel_\w+)\{", generate_latest(registry).decode(), re.MULTILINE))
    rules = (FOLDER / "opinion.rules.yml").read_text()
    recorded = set(re.findall(r"record: (\S+)", rules))
    named = set(re.findall(r"(?<![\w:])flywheel_\w+", rules))
    assert named
    assert named <= series
    assert set(re.findall(r"topic:[\w:]+", rules)) == recorded
