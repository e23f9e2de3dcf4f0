"""The rules of deploy/prometheus/ are Prometheus's, alert where they should, and use series that Flywheel has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.command import ROOT
from tests.helpers.monitoring import CONFIGS, RULE_FILES, RULES, alerts, documented_series, rules_of, series_of

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian's package prometheus)"
)
SEVERITIES = {"page", "ticket", "info"}
NOT_FLYWHEELS = {"up", "probe_ssl_earliest_cert_expiry", "probe_success"}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=RULES, capture_output=True, text=True, timeout=600)


@needs_promtool
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_promtool_accepts_the_configuration_and_its_rules(config: Path) -> None:
    done = promtool("check", "config", config.name)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("rules", RULE_FILES, ids=lambda path: path.name)
def test_alerts_fire_where_they_should_and_nowhere_else(rules: Path) -> None:
    done = promtool("test", "rules", rules.with_suffix("").name + ".test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rules", RULE_FILES, ids=lambda path: path.name)
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(rules: Path) -> None:
    tests = yaml.safe_load(rules.with_suffix("").with_suffix(".rules.test.yml").read_text())["tests"]
    fires, silent = set(), set()
    for case in tests:
        for check in case.get("alert_rule_test", []):
            (fires if check["exp_alerts"] else silent).add(check["alertname"])
        for check in case.get("promql_expr_test", []):
            named = set(re.findall(r'alertname="(\w+)"', yaml.safe_dump(check["exp_samples"])))
            fires |= named
            if "ALERTS" in check["expr"]:  # counts all alerts
                silent |= {alert["alert"] for alert in alerts(rules)} - named
    names = {alert["alert"] for alert in alerts(rules)}
    assert names <= fires
    assert names <= silent


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_loads_every_rule_file_and_scrapes_each_15_seconds(config: Path) -> None:
    loaded = yaml.safe_load(config.read_text())
    assert set(loaded["rule_files"]) == {path.name for path in RULE_FILES}
    assert loaded["global"]["scrape_interval"] == "15s"
    assert "flywheel" in {job["job_name"] for job in loaded["scrape_configs"]}


@pytest.mark.parametrize("alert", [alert for path in RULE_FILES for alert in alerts(path)], ids=lambda a: a["alert"])
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in SEVERITIES
    assert {"summary", "description", "runbook_url"} == set(alert["annotations"])
    name = alert["alert"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_every_alert_has_its_section_in_the_runbook_with_its_severity() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n\n(.*)$", runbook, re.MULTILINE))
    for alert in (alert for path in RULE_FILES for alert in alerts(path)):
        assert f"*{alert['labels']['severity']}" in sections[alert["alert"]]


def test_rules_name_series_that_the_server_has() -> None:
    rules = [rule for file in RULE_FILES for rule in rules_of(file)]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    named = {series for rule in rules for series in series_of(rule["expr"])}
    assert recorded <= named | {"task:flywheel_availability_budget:ratio30d", "task:flywheel_latency_budget:ratio30d"}
    assert named - recorded - NOT_FLYWHEELS <= documented_series()
