"""The benchmark's peers are complete and pinned, and speak their own protocols; none is installed or started here."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from loadtests.peers import FOLDER, PEERS, Peer

LABELS = ["track_order", "get_refund"]
TEXTS = ["where is my order?", "I want my money back; 100 %, “now”"]
PREDICTIONS = [{"label": label, "score": 0.9} for label in LABELS]
# What each peer answered to TEXTS, shortened; those that take one text answer the first.
ANSWERS: dict[str, Any] = {
    "fastapi": {"predictions": PREDICTIONS},
    "rayserve": PREDICTIONS[0],
    "litserve": PREDICTIONS[0],
    "mlserver": {
        "model_name": "intent",
        "outputs": [
            {"name": "score", "shape": [2, 1], "datatype": "FP64", "data": [0.9, 0.9]},
            {"name": "label", "shape": [2, 1], "datatype": "BYTES", "data": LABELS},
        ],
    },
    "infinity": {
        "object": "classify",
        "data": [[{"label": "review", "score": 0.1}, {"label": label, "score": 0.9}] for label in LABELS],
    },
    "mosec": {"predictions": PREDICTIONS},
    "bentoml": PREDICTIONS,
}
each_peer = pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS.keys())


def test_every_folder_is_a_peer_and_every_peer_a_folder() -> None:
    assert {file.parent.name for file in FOLDER.glob("*/*") if file.suffix in (".py", ".txt")} == set(PEERS)
    assert all(name == peer.name for name, peer in PEERS.items())


@each_peer
def test_a_folder_holds_a_server_and_exact_pins(peer: Peer) -> None:
    assert (peer.folder / "server.py").is_file()
    lines = (peer.folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+(\[[a-z,]+\])?==[0-9][0-9a-z.]*", line), line


@each_peer
def test_a_folder_is_no_package(peer: Peer) -> None:
    """With the folder above it on PYTHONPATH, a package called fastapi would hide the real one."""
    assert not (peer.folder / "__init__.py").exists()


@each_peer
def test_body_carries_the_text_and_labels_reads_the_answer(peer: Peer) -> None:
    count = len(TEXTS) if peer.many else 1
    strings = list(_strings(json.loads(peer.body(TEXTS[:count]))))
    assert [text for text in strings if text in TEXTS] == TEXTS[:count]
    assert peer.labels(json.loads(json.dumps(ANSWERS[peer.name]))) == LABELS[:count]


@each_peer
def test_one_text_is_a_request_of_its_own(peer: Peer) -> None:
    assert [text for text in _strings(json.loads(peer.body(TEXTS[:1]))) if text in TEXTS] == TEXTS[:1]
    if not peer.many:
        with pytest.raises(ValueError, match="too many values"):
            peer.body(TEXTS)


def _strings(content: Any) -> list[str]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        return [string for one in content for string in _strings(one)]
    return [content] if isinstance(content, str) else []
