"""The knowledge base of a running server: entries that a file brings are found by every replica, and are gone again."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.home import sentence_encoder_folder
from tests.helpers.command import flywheel
from tests.helpers.server import Server
from tests.helpers.store import bytes_of_store

WITHIN_S = 30  # seconds; a controller's step and a replica's are two each, and the machine may be busy
PREDICT = "/v2/models/intent/predict"
FAQ = [
    ("returns", "How do I return an item?", "Send it back within 30 days, <b>unused</b>."),
    ("password", "How do I reset my password?", "Use the link on the login page."),
    ("canada", "Do you ship to Canada?", "Yes, in 5 to 9 days."),
    ("gifts", "Can you wrap an order as a gift?", "Yes, for 4 dollars."),
]


@pytest.fixture
def encoder(trained_home: Path, server: Server) -> None:
    """The encoder in the server's home, made once in that of this clone: half a minute."""
    if not sentence_encoder_folder(trained_home).exists():
        from models.data.dataset import load_dataset
        from models.knowledge.make_encoder import make_sentence_encoder
        from models.training.candidate import calibration_sample

        texts = [example.text for example in load_dataset("intent").train]
        make_sentence_encoder(trained_home, calibration_sample(texts, seed=0))
    if not sentence_encoder_folder(server.home).exists():
        shutil.copytree(sentence_encoder_folder(trained_home), sentence_encoder_folder(server.home))


def asked(server: Server, text: str, **options: Any) -> dict[str, Any]:
    prediction: dict[str, Any] = server.post(PREDICT, json={"text": text, "knowledge": True, **options}).json()[
        "predictions"
    ][0]
    return prediction


def until_every_replica(server: Server, holds: Callable[[], bool]) -> None:
    """Wait until `holds` is true for so many requests in a row that each replica has had some of them."""
    deadline, row = time.monotonic() + WITHIN_S, 0
    while row < 12:
        assert time.monotonic() < deadline
        row = row + 1 if holds() else 0
        if not row:
            time.sleep(0.2)


@pytest.mark.usefixtures("encoder")
def test_what_a_file_brings_is_found_by_every_replica_until_it_is_deleted(server: Server, tmp_path: Path) -> None:
    with (tmp_path / "faq.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows([("id", "question", "answer"), *FAQ])
    done = flywheel("knowledge", "import", str(tmp_path / "faq.csv"), "--url", server.url)
    assert done.returncode == 0, done
    assert "4 added" in done.stdout
    revision = server.get("/v2/knowledge").json()["revision"]
    until_every_replica(server, lambda: server.get("/v2/models/intent").json()["knowledge"]["revision"] >= revision)
    found = asked(server, "what do I do to send an item back?")["nearest"]
    assert (found["id"], found["answer"]) == ("returns", FAQ[0][2])
    assert "nearest" not in asked(server, "who won the football match yesterday")
    texts = [question for _, question, _ in FAQ]
    together = server.post(PREDICT, json={"texts": texts, "knowledge": True}).json()["predictions"]
    assert [one["nearest"]["id"] for one in together] == [id_ for id_, _, _ in FAQ]
    assert [one["nearest"] for one in together] == [asked(server, text)["nearest"] for text in texts]
    search = server.post("/v2/knowledge/search", json={"text": "is delivery to Toronto possible", "limit": 1}).json()
    assert search["matches"][0]["id"] == "canada"
    done = flywheel("knowledge", "delete", "returns", "password", "--url", server.url)
    assert done.returncode == 0, done
    until_every_replica(server, lambda: asked(server, FAQ[0][1]).get("nearest", {}).get("id") != "returns")
    assert b"unused" not in bytes_of_store(server.home)
    assert flywheel("knowledge", "delete", "--all", "--url", server.url).returncode == 0
    until_every_replica(server, lambda: not server.get("/v2/models/intent").json()["knowledge"]["entries"])
