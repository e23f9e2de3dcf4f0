"""A backup of a server under load, restored elsewhere: the same answers, and all corrections accepted before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from models.feedback.store import Store
from models.feedback.store.schema import feedback
from models.home import feedback_database, sqlite_url
from tests.helpers.command import flywheel, refused
from tests.helpers.server import Server, start_server, stop_server

TASKS = ("intent", "sentiment")
TEXTS = [
    "where is my order 88231?", "I want my money back", "cancel it please", "Airline warns as fuel costs bite",
    "Shares rise after the results", "do you ship to Norway and can I pay by invoice?", "🙂", "ok",
]  # fmt: skip


@dataclass
class Load:
    """Clients that predict and send corrections; texts of accepted ones, and what failed."""

    server: Server
    accepted: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    predicted: int = 0

    def run(self, name: int, stop: threading.Event) -> None:
        with httpx.Client(base_url=self.server.url, timeout=30) as client:
            for number in range(1_000_000):
                if stop.is_set():
                    return
                text = f"please refund parcel {'abcdefgh'[name]} {number}"
                asked = client.post("/v2/models/intent/predict", json={"text": text})
                sent = client.post(
                    "/v2/models/intent/feedback", json={"text": text, "label": "get_refund", "consent": True}
                )
                self.failed += [f"{r.status_code} {r.text}" for r in (asked, sent) if r.status_code not in (200, 202)]
                self.predicted += 1
                if sent.status_code == 202:
                    self.accepted.append(text)


@contextmanager
def loaded(server: Server) -> Iterator[Load]:
    load, stop = Load(server), threading.Event()
    clients = [threading.Thread(target=load.run, args=(name, stop)) for name in range(2)]
    for client in clients:
        client.start()
    try:
        yield load
    finally:
        stop.set()
        for client in clients:
            client.join()


def answers(server: Server) -> dict[str, Any]:
    found = {}
    for task in TASKS:
        response = server.post(f"/v2/models/{task}/predict", json={"texts": TEXTS})
        assert response.status_code == 200, response.text
        found[task] = (response.json()["model_version"], response.json()["predictions"])
    return found


def corrections(home: Path) -> list[str]:
    store = Store(sqlite_url(feedback_database(home)))
    with store.database.read() as connection:
        texts = [str(text) for text in connection.scalars(select(feedback.c.text))]
    store.close()
    return texts


@pytest.mark.slow  # over a minute; CI has tests/unit/models/backup/, and test_runbook.py backs up and restores
def test_a_backup_under_load_serves_the_same_elsewhere(home: Path, tmp_path: Path) -> None:
    server = start_server(home, tmp_path / "log", tasks=TASKS, FLYWHEEL_LEARNING__AUTOMATIC="false")
    copy = tmp_path / "copy"
    try:
        with loaded(server) as load:
            time.sleep(2)
            accepted, predicted = list(load.accepted), load.predicted
            done = flywheel("backup", str(tmp_path / "a.tar"), home=home)
            assert load.predicted > predicted  # nobody waited for it
            time.sleep(1)
        assert done.returncode == 0, done.stderr
        assert accepted
        assert load.failed == []
        restored = flywheel("restore", str(tmp_path / "a.tar"), home=copy)
        assert restored.returncode == 0, restored.stderr
        in_use = refused(flywheel("restore", str(tmp_path / "a.tar"), home=home))
        assert f"is in use by the server with process id {server.process.pid}" in in_use
        before = answers(server)
    finally:
        assert stop_server(server) == 0
    kept = corrections(copy)
    assert set(accepted) <= set(kept) <= set(corrections(home))
    assert len(kept) == len(set(kept))
    second = start_server(copy, tmp_path / "second.log", tasks=TASKS, FLYWHEEL_LEARNING__AUTOMATIC="false")
    try:
        assert answers(second) == before
        sent = second.post("/v2/models/intent/feedback", json={"text": "new", "label": "get_refund", "consent": True})
        assert sent.status_code == 202
        counts = second.get("/v2/models/intent/feedback").json()
        assert counts["states"]["waiting"] == len(kept) + 1, counts
    finally:
        assert stop_server(second) == 0
