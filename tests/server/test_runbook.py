"""The commands of docs/runbook.md and docs/upgrade.md, run against a real server; the queries, parsed by Prometheus."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from models.releases.release import make_release, write_release
from tests.helpers.command import ROOT
from tests.helpers.server import Server, start_server, stop_server

RUNBOOK, UPGRADE = ROOT / "docs" / "runbook.md", ROOT / "docs" / "upgrade.md"
RULES = [path for path in (ROOT / "deploy" / "prometheus").glob("*.rules.yml") if ".test." not in path.name]
METRICS = ROOT / "docs" / "metrics.md"
ALERTS = {
    "FlywheelDown", "FlywheelAvailabilityBurnFast", "FlywheelAvailabilityBurnSlow", "FlywheelLatencyBurnFast",
    "FlywheelLatencyBurnSlow", "FlywheelSaturated", "FlywheelShedding", "FlywheelReplicaFlapping",
    "FlywheelReplicaMissing", "FlywheelChampionStale", "FlywheelRetrainingFailed", "FlywheelRetrainingStuck",
    "FlywheelGateRefusing", "FlywheelDrift", "FlywheelAccuracyFalling", "FlywheelFeedbackQueueOld",
    "FlywheelPredictionLogDropping", "FlywheelStoreErrors", "FlywheelDiskFilling", "FlywheelCertificateExpiring",
    "FlywheelWebhookFailing", "OpinionNegativeSurge", "OpinionNegativeDrift", "OpinionTopicSilent",
}  # fmt: skip
NOT_OURS = {"up", "probe_ssl_earliest_cert_expiry"}
NEEDS_POSTGRES = "$DATABASE_URL"


def sections(page: Path) -> dict[str, str]:
    """By heading: the text below it; what stands before the first one is under ''."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


PAGES = {(page, heading): text for page in (RUNBOOK, UPGRADE) for heading, text in sections(page).items()}
WITH_COMMANDS = {
    key: commands
    for key, text in PAGES.items()
    if (commands := [block for block in blocks(text, "sh") if NEEDS_POSTGRES not in block])
}
QUERIES = [query for heading, text in sections(RUNBOOK).items() for query in blocks(text, "promql")]


def named(key: object) -> str:
    return f"{key[0].name}#{key[1]}" if isinstance(key, tuple) else str(key)


@pytest.fixture(scope="module")
def served(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two versions of intent."""
    folder = tmp_path_factory.mktemp("runbook")
    home = folder / "home"
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, home / part)
    for version in ("1", "2"):
        if not (home / "bundles" / "intent" / version).exists():
            some = next(path for path in (home / "bundles" / "intent").iterdir() if path.name.isdecimal())
            shutil.copytree(some, home / "bundles" / "intent" / version)
    server = start_server(home, folder / "log", tasks=["intent", "sentiment"], FLYWHEEL_LEARNING__AUTOMATIC="false")
    yield server
    assert stop_server(server) == 0


@pytest.mark.parametrize("key", WITH_COMMANDS, ids=named)
def test_commands_work(served: Server, key: tuple[Path, str], tmp_path: Path) -> None:
    """Each section finds version 2 as the champion and 1 as the one before."""
    write_release(served.home, make_release(served.home, "intent", "2", previous="1"))
    (tmp_path / "backups").mkdir()
    places = {
        "http://127.0.0.1:8000": served.url,
        "/var/lib/flywheel": str(served.home),
        "/mnt/backups": str(tmp_path / "backups"),
        "/srv/flywheel-copy": str(tmp_path / "copy"),
    }
    program = "\n".join(WITH_COMMANDS[key])
    for place, real in places.items():
        program = program.replace(place, real)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FLYWHEEL_URL": served.url,
        "FLYWHEEL_HOME": str(served.home),
        "FLYWHEEL_CONFIG": str(served.home.with_name("log.yaml")),
    }
    done = subprocess.run(
        ["bash", "-e", "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{program}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    answers = [line for line in done.stdout.splitlines() if '"error"' in line]
    assert answers == [], program


@pytest.mark.parametrize("key", PAGES, ids=named)
def test_commands_that_need_another_machine_are_shell(key: tuple[Path, str]) -> None:
    for block in blocks(PAGES[key], "console"):
        subprocess.run(["bash", "-n", "-c", block], check=True)


def test_every_alert_has_its_section() -> None:
    """Those of the rules that deploy/ has, and no section is about an alert that does not exist."""
    alerts = {rule["alert"] for path in RULES for group in yaml.safe_load(path.read_text())["groups"]
              for rule in group["rules"] if "alert" in rule}  # fmt: skip
    described = set(sections(RUNBOOK)) - {""}
    assert alerts <= described
    assert described == ALERTS
    for heading in described:
        text = sections(RUNBOOK)[heading]
        assert "**Over**" in text, heading
        assert blocks(text, "promql"), heading
        assert blocks(text, "sh") or blocks(text, "console"), heading


def test_links_within_the_runbook_lead_to_a_section() -> None:
    anchors = {heading.lower() for heading in sections(RUNBOOK)}
    for link in re.findall(r"\]\(#([^)]+)\)", RUNBOOK.read_text(encoding="utf-8")):
        assert link in anchors, link


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: apt-get install prometheus)")
def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    assert len(QUERIES) >= len(ALERTS)
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not METRICS.exists(), reason="docs/metrics.md lists the metrics")
def test_queries_name_metrics_that_exist() -> None:
    """A name that nobody exports is an empty answer at night."""
    listed = set(re.findall(r"flywheel_[a-z_]+", METRICS.read_text(encoding="utf-8")))
    for query in QUERIES:
        for name in re.findall(r"\bflywheel_[a-z_]+", query):
            base = re.sub(r"_(bucket|sum|count|total)$", "", name)
            assert {name, base, f"{base}_total"} & listed, name
    assert NOT_OURS
