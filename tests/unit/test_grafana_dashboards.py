"""The dashboards of deploy/grafana/ are what their source builds, are Grafana's, and name series that exist."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import ROOT
from tests.helpers.monitoring import DASHBOARDS, RULE_FILES, Panel, documented_series, panels, rules_of, series_of

GRAFANA = ROOT / "deploy" / "grafana"
ALL = [panel for file in DASHBOARDS for panel in panels(file)]
NOT_FLYWHEELS = {"up"}


def test_there_is_a_page_for_each_subject() -> None:
    assert {file.stem for file in DASHBOARDS} == {"overview", "task", "release", "wheel", "opinion"}


def test_the_json_is_what_the_source_builds(tmp_path: Path) -> None:
    subprocess.run([sys.executable, GRAFANA / "build.py", "--output", tmp_path], check=True, timeout=120)
    for file in DASHBOARDS:
        assert (tmp_path / file.name).read_text() == file.read_text(), "run deploy/grafana/build.py"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_grafana_reads_it_as_its_own(file: Path) -> None:
    """By the types that Grafana generates from its schema: what they read and write again is the same."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    board = json.loads(file.read_text())
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(board))) == board
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])


@pytest.mark.parametrize("panel", ALL, ids=str)
def test_a_panel_says_what_it_shows(panel: Panel) -> None:
    assert panel.description.endswith(".")
    assert panel.queries


def test_panels_name_series_that_the_server_has() -> None:
    rules = [rule for file in RULE_FILES for rule in rules_of(file)]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    named = {series for panel in ALL for query in panel.queries for series in series_of(query)}
    assert named - recorded - NOT_FLYWHEELS <= documented_series()


def test_every_series_of_the_server_is_on_a_dashboard_or_in_a_rule() -> None:
    rules = [rule for file in RULE_FILES for rule in rules_of(file)]
    used = {series for panel in ALL for query in panel.queries for series in series_of(query)}
    used |= {series for rule in rules for series in series_of(rule["expr"])}
    assert documented_series() <= used
