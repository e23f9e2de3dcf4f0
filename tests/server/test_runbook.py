"""The commands of docs/runbook.md and docs/upgrade.md, section by section, against a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.releases.release import make_release, write_release
from tests.helpers.command import ROOT
from tests.helpers.documented import blocks_of, sections_of
from tests.helpers.server import Server, start_server, stop_server

PAGES = ("runbook.md", "upgrade.md")
_NEEDS_POSTGRES = "DATABASE_URL"  # run by tests/server/store/test_dump.py


def commands() -> dict[tuple[str, str], str]:
    """By page and section: its `sh` blocks, in order. What stands before the first section is under ''."""
    found = {}
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for heading, section in {"": text.split("\n## ")[0], **sections_of(text)}.items():
            if blocks := [block for block in blocks_of(section, "sh") if _NEEDS_POSTGRES not in block]:
                found[page, heading] = "\n".join(blocks)
    return found


COMMANDS = commands()


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
    try:
        for text in ("where is my order?", "hello", "cancel it"):
            assert server.post("/v2/models/intent/predict", json={"text": text}).status_code == 200
        yield server
    finally:
        assert stop_server(server) == 0


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "backups").mkdir()
    return folder


@pytest.mark.parametrize(("page", "section"), COMMANDS)
def test_commands_work(served: Server, page: str, section: str, disk: Path) -> None:
    """Each section finds version 2 as the champion and 1 as the one before, and the backups of those above it."""
    write_release(served.home, make_release(served.home, "intent", "2", previous="1"))
    places = {
        "http://127.0.0.1:8000": served.url,
        "/var/lib/flywheel": str(served.home),
        "/mnt/backups": str(disk / "backups"),
        "/srv/flywheel": str(disk / "srv"),
    }
    program = COMMANDS[page, section]
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
