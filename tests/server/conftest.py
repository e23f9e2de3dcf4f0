"""What the tests of servers stand on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.server import Server, start_server, stop_server


@pytest.fixture(scope="session")
def server(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that only ask; a test that breaks things starts its own with `start_server`."""
    folder = tmp_path_factory.mktemp("server")
    home = folder / "home"
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, home / part)
    topics = {"FLYWHEEL_TASKS__SENTIMENT__OPTIONS__TOPICS": "deploy/topics.example.yaml"}
    running = start_server(home, folder / "server.log", **topics)
    yield running
    assert stop_server(running) == 0


@pytest.fixture(scope="module")
def own_server(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for each file that breaks releases and processes: the intent task, with two replicas on any machine."""
    folder = tmp_path_factory.mktemp("own_server")
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, folder / "home" / part)
    log = folder / "server.log"
    running = start_server(folder / "home", log, tasks=["intent"], FLYWHEEL_TASKS__INTENT__REPLICAS="2")
    time.sleep(3)  # Serve replaces HAProxy once more about when it is ready, and its counts begin anew
    yield running
    assert stop_server(running) == 0
