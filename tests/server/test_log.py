"""The log of a real server as JSON: a record a line, of every process, and nothing in it that a client sent."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from models.data.dataset import load_dataset
from models.releases.release import read_release
from tests.helpers.server import Server, start_server, stop_server
from tests.helpers.waiting import eventually

TOKEN = "operator-token-Zq81"
# What clients send; none of it may be in a log. Each is a word of its own, so that none is there by chance.
SECRETS = {
    "text": "Qvixen Marblethorpe wants her parcel",
    "user": "wrenfield.customer.90417",
    "email": "qvixen.m@marblethorpe.example",
    "phone": "+49 30 9018 2277",
    "card": "4929 1234 5678 9012",
    "key": "sk_live_zz91hqT4",
    "actor": "Ottoline Brackwater",
    "reason": "complaint of Ysolde Pennyfeather",
    "path": "Threnody-Oakhollow",
    "document": "doc-Larkspur-5561",
    "item": "item-Foxglove-7712",
}
OTHER = "77"  # a version like the champion
ENDED = "intent: retraining: "
OPERATOR = {"authorization": f"Bearer {TOKEN}"}


class Logged(NamedTuple):
    server: Server
    log: Path
    temporary: Path


@pytest.fixture(scope="module")
def logged(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    """A server whose every file lies below two folders; without checkpoints, so that a retraining fails."""
    folder = tmp_path_factory.mktemp("log")
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, folder / "home" / part)
    release = read_release(folder / "home", "intent")
    champion = folder / "home" / release.versions[release.champion]
    shutil.copytree(champion, champion.with_name(OTHER))
    temporary = Path(tempfile.mkdtemp(prefix="fwlog", dir="/tmp"))  # short, for Ray's sockets
    server = start_server(
        folder / "home", folder / "log", TMPDIR=str(temporary), FLYWHEEL_LOGGING__FORMAT="json",
        FLYWHEEL_SERVER__OPERATOR_TOKEN=TOKEN, FLYWHEEL_LEARNING__AUTOMATIC="false",
        FLYWHEEL_TRACING__ENDPOINT=f"http://127.0.0.1:9/{SECRETS['key']}", FLYWHEEL_TRACING__SAMPLE="1",
    )  # fmt: skip
    try:
        send_everything(server)
        eventually(lambda: any(r["message"].startswith(ENDED) for r in records(folder / "log")), 120)
        yield Logged(server, folder / "log", temporary)
    finally:
        stop_server(server)
        shutil.rmtree(temporary, ignore_errors=True)


def records(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def send_everything(server: Server) -> None:
    """Good, wrong and hostile requests to every endpoint, with secrets wherever a client can put one."""
    said = " ".join(SECRETS.values())
    user = {"x-user-id": SECRETS["user"], "x-request-id": SECRETS["email"], "user-agent": SECRETS["key"]}
    label = ""
    for body in (
        {"text": said}, {"texts": [said, "x"], "slots": {"customer_name": SECRETS["text"]}, "explain": True},
        {"text": said, "knowledge": True}, {"text": 1, said: 2}, [said], said, {"texts": [said] * 5000},
        {"text": said, "slots": {SECRETS["key"]: {"a": 1}}},
    ):  # fmt: skip
        response = server.post("/v2/models/intent/predict", json=body, headers=user)
        if response.status_code == 200:
            label, id_ = response.json()["predictions"][0]["label"], response.json()["id"]
    documents = [
        {"text": said, "topic": SECRETS["email"], "document_id": SECRETS["document"], "published": SECRETS["key"]}
    ]
    server.post("/v2/models/sentiment/predict", json={"documents": documents})
    server.post("/v2/models/sentiment/predict", json={"text": said, "document_id": SECRETS["document"]}, headers=user)
    ranking = {
        "user": {"id": SECRETS["user"], "history": [said, {"id": SECRETS["item"], "text": said, "event": "like"}]},
        "candidates": [
            {"id": SECRETS["item"], "text": said, "features": {SECRETS["key"]: "x"}},
            {"id": "b", "text": said},
        ],
    }
    server.post("/v2/models/recommendation/predict", json=ranking)
    del ranking["candidates"][0]["features"]  # type: ignore[attr-defined]
    server.post("/v2/models/recommendation/predict", json=ranking)
    for task in ("intent", "sentiment", "recommendation"):
        tensor = {"name": SECRETS["key"], "shape": [1], "datatype": "BYTES", "data": [said]}
        server.post(f"/v2/models/{task}/infer", json={"inputs": [tensor], "id": SECRETS["user"]})
        server.post(
            f"/v2/models/{task}/infer", json={"inputs": [{**tensor, "name": "text"}], "parameters": {said: said}}
        )
        for content in (said.encode(), b"{" + said.encode(), b"\xff" + said.encode()):
            for kind in ("application/json", SECRETS["key"]):
                server.post(f"/v2/models/{task}/predict", content=content, headers={"content-type": kind})
        server.get(f"/v2/models/{task}/versions/{SECRETS['path']}/ready")
        server.post(f"/v2/models/{task}/versions/{SECRETS['path']}/predict", json={"text": said})
        server.get(f"/v2/models/{task}/{SECRETS['path']}?key={SECRETS['key']}")
        for item in (
            {"text": said, "label": label, "user": SECRETS["user"], "consent": True},
            {"id": id_, "label": label, "source": SECRETS["email"]}, {"id": SECRETS["key"], "label": SECRETS["text"]},
            {"id": id_, "item_id": SECRETS["item"], "event": SECRETS["key"]}, {SECRETS["key"]: said},
        ):  # fmt: skip
            server.post(f"/v2/models/{task}/feedback", json=item, headers=user)
            server.post(f"/v2/models/{task}/feedback", json={"feedback": [item, said]}, headers=user)
    corpus = load_dataset("intent").train[:4000:80]  # a retraining begins, and fails: there is no checkpoint
    good = [
        {
            "text": example.text,
            "label": example.label,
            "source": "desk",
            "user": f"{SECRETS['user']}{i}",
            "consent": True,
        }
        for i, example in enumerate(corpus)
    ]
    server.post("/v2/models/intent/feedback", json={"feedback": good})
    change = {"actor": SECRETS["actor"], "reason": SECRETS["reason"]}
    for task in ("intent", SECRETS["path"]):
        operations = f"/v2/repository/models/{task}"
        for headers in ({"authorization": f"Bearer {SECRETS['key']}"}, OPERATOR):
            for name, more in (
                ("promote", {"version": OTHER}), ("rollback", {}), ("challenge", {"version": SECRETS["key"]}),
                ("promote", {"version": SECRETS["path"]}), ("erase", {"user": SECRETS["email"]}), ("retrain", {}),
                ("retrain", {SECRETS["key"]: 1}),
            ):  # fmt: skip
                server.post(f"{operations}/{name}", json={**change, **more}, headers=headers)
            for name in ("retrain", "audit", "versions", f"gate/{SECRETS['path']}"):
                httpx.get(f"{server.url}{operations}/{name}", headers=headers, timeout=60)
    entry = {"question": said, "answer": said, "language": "en", "tags": [SECRETS["key"]]}
    for headers in ({}, OPERATOR):
        knowledge = f"{server.url}/v2/knowledge"
        httpx.put(f"{knowledge}/{SECRETS['path']}", json=entry, headers=headers, timeout=60)
        httpx.put(f"{knowledge}/{SECRETS['path']}", json={said: 1}, headers=headers, timeout=60)
        httpx.post(f"{knowledge}/search", json={"text": said}, headers=headers, timeout=60)
        httpx.get(f"{knowledge}/{SECRETS['path']}", headers=headers, timeout=60)
        httpx.delete(f"{knowledge}/{SECRETS['path']}", headers=headers, timeout=60)
        for path in (
            "review/intent",
            "discovery/intent",
            "opinion/topics",
            "opinion/trends",
            "opinion/alerts",
            "repository/index",
        ):
            httpx.get(
                f"{server.url}/v2/{path}?topic={SECRETS['key']}&limit={SECRETS['key']}", headers=headers, timeout=330
            )
    for path in (f"/{SECRETS['path']}", f"/docs/{SECRETS['path']}", f"/v2/models/{SECRETS['path']}", "/metrics", "/v2"):
        server.get(f"{path}?{SECRETS['key']}")
    host, port = server.url.removeprefix("http://").split(":")
    for raw in (f"{SECRETS['key']} / HTTP/1.1\r\n\r\n", f"GET /{SECRETS['text']} HTTP/1.1\r\n\r\n", f"{said}\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(raw.encode())
            client.recv(65536)


def test_each_line_is_a_record_of_one_of_the_processes(logged: Logged) -> None:
    found = records(logged.log)
    for record in found:
        assert {"time", "level", "logger", "message", "process", "pid"} <= set(record)
    assert {"server", "control", "intent"} <= {record["process"] for record in found}
    said = {(record["process"], record["message"]) for record in found}
    assert ("control", "intent: promote of version 77") in said
    assert any(record["message"].startswith("ready at http://127.0.0.1") for record in found)
    (failed, *_) = [record for record in found if record["process"] == "retraining"]
    assert failed["message"] == "retraining intent failed"
    assert "run.py" in failed["traceback"]


def test_a_record_of_a_request_names_it(logged: Logged) -> None:
    (moved, *_) = [record for record in records(logged.log) if record["message"] == "intent: promote of version 77"]
    assert len(moved["request_id"]) == 36  # HAProxy's: the address that the client sent as its id is none
    assert len(moved["trace_id"]) == 32


def test_no_file_of_the_log_has_anything_that_a_client_sent(logged: Logged) -> None:
    logs = [logged.log, *(file for file in logged.temporary.rglob("*") if file.is_file() and not file.is_symlink())]
    assert any(file.name.startswith("replica_") for file in logs)
    found = {
        (name, file.name)
        for file in logs
        for name, secret in {**SECRETS, "token": TOKEN}.items()
        if secret.encode() in file.read_bytes()
    }
    assert found == set()
