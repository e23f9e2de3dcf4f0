"""A first start: answers at once with first versions, and trains those with an encoder beside the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.releases.release import awaits_encoder, read_release
from tests.helpers.command import ROOT
from tests.helpers.server import Server, children, start_server, stop_server
from tests.helpers.waiting import eventually

# The task whose training is the shortest, and one that trains for longer.
TASK, SLOW = "recommendation", "sentiment"
MODEL, OPERATIONS = f"/v2/models/{TASK}", f"/v2/repository/models/{TASK}"
RANK = {
    "user": {"history": ["Trailhead 2P Ultralight Tent. Two-person tent under one kilo."]},
    "candidates": [{"id": "mug", "text": "Titanium camping mug."}, {"id": "cushion", "text": "Velvet cushion cover."}],
}


def answer(server: Server) -> dict[str, Any]:
    response = server.post(f"{MODEL}/predict", json=RANK)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def training(server: Server, task: str) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/v2").json()["training"][task]
    return found


def status(server: Server) -> str:
    command = [Path(sys.executable).parent / "flywheel", "status", "--url", server.url]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.slow
def test_a_first_start_answers_trains_beside_the_server_and_stops_when_asked(tmp_path: Path) -> None:
    home, log, config = tmp_path / "home", tmp_path / "log", tmp_path / "flywheel.yaml"
    config.write_text(f"tasks: {{{TASK}: {{}}, {SLOW}: {{}}}}")
    server = start_server(home, log, FLYWHEEL_CONFIG=str(config))
    try:
        first = answer(server)
        assert first["model_version"] == "1"
        assert first["predictions"][0]["id"] == "mug"
        (details,) = server.get(MODEL).json()["version_details"]
        assert "first version" in details["notes"][0]
        assert details["metrics"]["auc"] > details["metrics"]["popularity_auc"]
        label = server.post(f"/v2/models/{SLOW}/predict", json={"text": "Profit warning sends shares lower"}).json()
        assert (label["model_version"], label["predictions"][0]["label"]) == ("1", "negative")
        assert training(server, TASK)["state"] == training(server, SLOW)["state"] == "running"
        assert f"{TASK}: its version with an encoder is being trained" in status(server)
        assert server.get(f"{OPERATIONS}/retrain").json()["state"] == "waiting"
        event = {"id": first["id"], "item_id": "mug", "event": "click", "consent": True}
        given = server.post(f"{MODEL}/feedback", json=event)
        assert given.status_code in (200, 202), given.text

        eventually(lambda: training(server, TASK)["state"] == "released", 240)
        eventually(lambda: answer(server)["model_version"] == "2", 20)
        (details,) = server.get(MODEL).json()["version_details"]
        assert not any("first version" in note for note in details["notes"])
        (entry,) = server.get(f"{OPERATIONS}/audit").json()["audit"]
        assert (entry["action"], entry["version"]) == ("promote", "2")
        assert "flywheel up" in entry["actor"]
        assert server.get(f"{OPERATIONS}/retrain").json()["state"] == "never"
        assert server.get(f"{MODEL}/feedback").json()["states"]["waiting"] == 1
        assert f"{TASK}: trained; version 2 serves" in log.read_text()
        assert f"{TASK}: training released: version 2 serves" in status(server)
        back = server.post(f"{OPERATIONS}/rollback", json={"reason": "a test"}).json()
        assert (back["champion"], read_release(home, TASK).champion) == ("1", "1")
        eventually(lambda: answer(server)["model_version"] == "1", 20)

        assert training(server, SLOW)["state"] == "running"
        trainers = children(server.process.pid, "prepare --beside") + children(server.process.pid, "spawn_main")
        assert len(trainers) > 1
    finally:
        assert stop_server(server) == 0  # a stop that was asked for is no failure, also of the training
    assert not [pid for pid in trainers if Path(f"/proc/{pid}").exists()]
    assert "Traceback" not in log.read_text()
    assert "resource_tracker" not in log.read_text()
    assert (awaits_encoder(home, TASK), awaits_encoder(home, SLOW)) == (False, True)  # what the next start trains
