"""The control plane on a real server: operators move, look and ask while no replica of a task is alive."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.releases.gate_reports import write_gate_report
from tests.helpers.contract import assert_error
from tests.helpers.server import Server, children, replicas, start_server, stop_server
from tests.helpers.waiting import eventually

MODEL, OPERATIONS = "/v2/models/intent", "/v2/repository/models/intent"
HI = {"text": "where is my order"}


@pytest.fixture(scope="module")
def server(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    own = tmp_path_factory.mktemp("control") / "home"
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, own / part)
    shutil.copytree(own / "bundles" / "intent" / "1", own / "bundles" / "intent" / "2")
    write_gate_report(own, "intent", "2", b'{"accepted": true}')
    started = start_server(
        own, own.parent / "log", FLYWHEEL_LEARNING__AUTOMATIC="false", FLYWHEEL_ROLLOUT__AUTOMATIC="false"
    )
    yield started
    stop_server(started)


def index(server: Server, **body: Any) -> dict[tuple[str, str], str]:
    rows = server.post("/v2/repository/index", json=body).json()
    return {(row["name"], row["version"]): row["state"] for row in rows}


def status(server: Server) -> int | None:
    """Of a prediction; None when the connection ended, as one to a replica that is killed just then may."""
    try:
        return server.post(f"{MODEL}/predict", json=HI).status_code
    except httpx.TransportError:
        return None


def test_the_index_names_every_version_and_which_answer(server: Server) -> None:
    found = index(server)
    assert found["intent", "1"] == "READY"
    assert found["intent", "2"] == "UNAVAILABLE"
    assert set(index(server, ready=True).values()) == {"READY"}
    assert server.post("/v2/repository/index").status_code == 200  # Triton's clients send no body
    assert_error(server.post("/v2/repository/index", json={"rady": True}), 422)


def test_versions_say_what_their_manifests_say(server: Server) -> None:
    versions = server.get(f"{OPERATIONS}/versions").json()["versions"]
    assert [(version["version"], version["alias"]) for version in versions] == [("2", None), ("1", "champion")]
    assert versions[1]["traffic"] == 1.0
    assert versions[1]["metrics"]
    assert versions[1]["created"]


def test_a_gate_report_is_there_for_what_a_retraining_released(server: Server) -> None:
    assert server.get(f"{OPERATIONS}/gate/2").json() == {"accepted": True}
    for version in ("1", "x", ".."):
        assert_error(server.get(f"{OPERATIONS}/gate/{version}"), 404)


@pytest.mark.parametrize("name", ["promote", "challenge", "rollback", "retrain", "erase", "load", "unload"])
def test_a_task_that_is_not_served_is_not_found(server: Server, name: str) -> None:
    error = assert_error(server.post(f"/v2/repository/models/unheard/{name}", json={}), 404)
    assert "intent" in error["error"]


def test_who_asks_where_operations_were_is_told_where_they_are(server: Server) -> None:
    error = assert_error(server.post(f"{MODEL}/rollback", json={}), 404)
    assert f"{OPERATIONS}/rollback" in error["error"]


def test_a_body_beyond_the_limit_is_refused(server: Server) -> None:
    huge = b'{"reason": "' + b"a" * 11_000_000 + b'"}'
    assert_error(server.post(f"{OPERATIONS}/rollback", content=huge, headers={"content-type": "application/json"}), 413)


def test_a_request_for_a_retraining_has_a_state_and_an_end(server: Server) -> None:
    asked = server.post(f"{OPERATIONS}/retrain", json={"actor": "ops", "reason": "before the sale"})
    assert asked.status_code == 202

    def request() -> dict[str, Any]:
        found: list[dict[str, Any]] = server.get(f"{OPERATIONS}/retrain").json()["requests"]
        return next(one for one in found if one["id"] == asked.json()["request"])

    assert request()["state"] in ("requested", "running")
    priorities = set()

    def is_done() -> bool:
        for pid in children(server.process.pid, "ray::_retrain"):
            with suppress(ProcessLookupError):
                priorities.add(os.getpriority(os.PRIO_PROCESS, pid))
        return request()["state"] == "done"

    eventually(is_done, 60)
    assert priorities == {19}, "a retraining takes only what requests leave"
    assert (request()["actor"], request()["reason"]) == ("ops", "before the sale")
    assert request()["outcome"] == "too_few"  # there are no corrections
    started = next(e for e in server.get(f"{OPERATIONS}/audit").json()["audit"] if e["action"] == "retrain started")
    assert started["reason"] == "requested by ops: before the sale"


def configured(server: Server) -> dict[str, float]:
    """Replicas that each task should have, as the alerts on missing replicas read it."""
    found = re.findall(r'^flywheel_configured_replicas\{task="(.*)"\} (.*)$', server.get("/metrics").text, re.M)
    return {task: float(value) for task, value in found}


def test_operators_need_no_replica(server: Server) -> None:
    """Promote, roll back, challenge, retrain, erase and look, with the task's replicas gone; then all answer again."""
    assert server.post(f"{OPERATIONS}/unload", json={"reason": "the night"}).status_code == 200
    eventually(lambda: configured(server) == {"intent": 0, "sentiment": 1, "recommendation": 1}, 30)  # no alert fires
    error = assert_error(server.post(f"{MODEL}/predict", json=HI), 503)
    assert f"{OPERATIONS}/load" in error["error"]
    error = assert_error(server.post(f"{MODEL}/rollback", json={}), 404)
    assert f"{OPERATIONS}/rollback" in error["error"]
    assert server.get("/v2/health/ready").status_code == 200  # it is off on purpose
    assert index(server)["intent", "1"] == "UNAVAILABLE"
    assert server.post("/v2/models/sentiment/predict", json=HI).status_code == 200
    assert server.post(f"{OPERATIONS}/promote", json={"version": "2"}).json()["champion"] == "2"
    assert server.post(f"{OPERATIONS}/rollback", json={}).json()["champion"] == "1"
    assert server.post(f"{OPERATIONS}/promote", json={"version": "2", "reason": "it is better"}).is_success
    assert server.post(f"{OPERATIONS}/erase", json={"user": "nobody"}).json()["predictions"] == 0
    actions = [(entry["action"], entry["reason"]) for entry in server.get(f"{OPERATIONS}/audit").json()["audit"]]
    assert actions[0] == ("promote", "it is better")
    assert ("unload", "the night") in actions
    assert server.post(f"{OPERATIONS}/load", json={}).status_code == 200
    assert server.post(f"{MODEL}/predict", json=HI).json()["model_version"] == "2"
    assert server.post(f"{OPERATIONS}/load", json={}).status_code == 200  # again, without effect
    assert index(server)["intent", "2"] == "READY"
    eventually(lambda: configured(server)["intent"] >= 1, 30)
    assert_error(server.post(f"{OPERATIONS}/load", json={"parameters": {"config": "{}"}}), 422)


def test_a_champion_that_no_replica_can_load_is_rolled_back_over_http(server: Server) -> None:
    """The night on which it matters: each replica of the task dies at its start."""
    assert server.post(f"{OPERATIONS}/promote", json={"version": "1"}).is_success
    shutil.copytree(server.home / "bundles" / "intent" / "1", server.home / "bundles" / "intent" / "3")
    assert server.post(f"{OPERATIONS}/promote", json={"version": "3"}).is_success
    eventually(lambda: server.post(f"{MODEL}/predict", json=HI).json()["model_version"] == "3", 20)
    (server.home / "bundles" / "intent" / "3" / "model.onnx").write_bytes(b"torn")

    def no_replica_answers() -> bool:
        if status(server) == 503:
            return True
        for replica in replicas(server):  # again: one may have been starting, with version 3 loaded while it was whole
            os.kill(replica, signal.SIGKILL)
        return False

    eventually(no_replica_answers, 60)
    assert server.post(f"{OPERATIONS}/rollback", json={"reason": "replicas die"}).json()["champion"] == "1"
    eventually(lambda: status(server) == 200, 60)
    assert server.post(f"{MODEL}/predict", json=HI).json()["model_version"] == "1"


def test_a_load_that_fails_says_why_and_leaves_the_task_unloaded(server: Server) -> None:
    model = server.home / "bundles" / "sentiment" / "1" / "model.onnx"
    whole = model.read_bytes()
    operations = OPERATIONS.replace("intent", "sentiment")
    assert server.post(f"{operations}/unload", json={}).status_code == 200
    model.write_bytes(b"torn")
    try:
        failed = httpx.post(f"{server.url}{operations}/load", json={}, timeout=120)
        assert "checksum" in assert_error(failed, 503)["error"]
        assert server.get("/v2/health/ready").status_code == 200
        assert index(server)["sentiment", "1"] == "UNAVAILABLE"
    finally:
        model.write_bytes(whole)
    assert httpx.post(f"{server.url}{operations}/load", json={}, timeout=120).status_code == 200
    assert server.post("/v2/models/sentiment/predict", json=HI).status_code == 200
