"""docs/runbook.md: what a section has, links, commands that are shell, and queries that Prometheus parses.

That each alert has its section is tested with the rules (test_prometheus_rules.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers.command import ROOT
from tests.helpers.documented import blocks_of, sections_of
from tests.helpers.monitoring import documented_series, series_of

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
UPGRADE = (ROOT / "docs" / "upgrade.md").read_text(encoding="utf-8")
SECTIONS = sections_of(RUNBOOK)
QUERIES = blocks_of(RUNBOOK, "promql")
NOT_FLYWHEELS = {"up", "probe_ssl_earliest_cert_expiry", "probe_success"}


@pytest.mark.parametrize("alert", SECTIONS)
def test_a_section_says_how_to_see_it_and_when_it_is_over(alert: str) -> None:
    assert re.match(r"\n\*(page|ticket|info)\b", SECTIONS[alert])
    assert "\n**Over** " in SECTIONS[alert]
    assert blocks_of(SECTIONS[alert], "promql")
    assert blocks_of(SECTIONS[alert], "sh") or blocks_of(SECTIONS[alert], "console")


def test_links_within_the_page_lead_to_a_section() -> None:
    anchors = {heading.lower() for heading in SECTIONS}
    links = set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK))
    assert links
    assert links <= anchors


@pytest.mark.parametrize("page", [RUNBOOK, UPGRADE], ids=["runbook", "upgrade"])
def test_commands_for_another_machine_are_shell(page: str) -> None:
    for block in blocks_of(page, "console"):
        subprocess.run(["bash", "-n", "-c", block], check=True)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: apt-get install prometheus)")
def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_queries_name_series_that_exist() -> None:
    """A name that nobody exports is an empty answer at night."""
    named = {series for query in QUERIES for series in series_of(query)}
    assert named - NOT_FLYWHEELS <= documented_series()
