"""The official clients of the Open Inference Protocol, unchanged, against the server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton

from tests.helpers.command import ROOT
from tests.helpers.contract import NEGATIVE, POSITIVE, TASKS
from tests.helpers.server import Server

KSERVE_VENV = ROOT / ".venv-kserve"
KSERVE_REQUIREMENTS = ("kserve==0.21.0", "httpx")
ORDER, WEATHER = "where is my order 88231?", "will it rain tomorrow"

both_modes = pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(urlsplit(server.url).netloc) as connected:
        yield connected


def texts_tensor(name: str, texts: Sequence[str], binary: bool) -> triton.InferInput:
    tensor = triton.InferInput(name, [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, np.object_), binary_data=binary)
    return tensor


def as_texts(result: triton.InferResult, name: str) -> list[str]:
    """BYTES come back as bytes from a binary answer and as str from a JSON one."""
    return [v.decode() if isinstance(v, bytes) else v for v in result.as_numpy(name)]


def test_triton_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "flywheel"
    assert not client.is_model_ready("nosuch")
    assert not client.is_model_ready("intent", "999")
    for task in TASKS:
        metadata = client.get_model_metadata(task)
        version = metadata["versions"][0]
        assert metadata["name"] == task
        assert client.is_model_ready(task)
        assert client.is_model_ready(task, version)
        assert client.get_model_metadata(task, version)["versions"] == [version]


@both_modes
def test_an_answer_to_a_clients_own_id_can_be_corrected(
    server: Server, client: triton.InferenceServerClient, binary: bool
) -> None:
    result = client.infer("intent", [texts_tensor("text", [ORDER], binary)], request_id="mine")
    response = result.get_response()
    assert response["id"] == "mine"
    correction = {"id": response["parameters"]["prediction_id"], "label": "track_order", "source": f"oip-{binary}"}
    assert server.post("/v2/models/intent/feedback", json={**correction, "consent": False}).status_code == 202


@both_modes
@pytest.mark.parametrize(
    ("task", "texts", "labels"),
    [
        ("intent", [ORDER, WEATHER], ["track_order", "out_of_scope"]),
        ("sentiment", [NEGATIVE, POSITIVE, NEGATIVE], ["negative", "positive", "negative"]),
    ],
)
def test_triton_classifies(
    client: triton.InferenceServerClient, task: str, texts: list[str], labels: list[str], binary: bool
) -> None:
    """No outputs are requested: all come, and in binary, which is what this client then asks for."""
    result = client.infer(task, [texts_tensor("text", texts, binary)], request_id="mine")
    response = result.get_response()
    assert (response["model_name"], response["id"]) == (task, "mine")
    assert as_texts(result, "label") == labels
    scores = result.as_numpy("score")
    assert scores.dtype == np.float32
    assert scores.shape == (len(texts),)
    assert ((scores > 0) & (scores <= 1)).all()
    if task == "intent":
        assert result.as_numpy("handoff").tolist() == [False, True]


@both_modes
@pytest.mark.parametrize("wanted", [["label"], ["score", "handoff"], ["handoff", "label", "score"]], ids="+".join)
def test_triton_gets_the_outputs_it_requests(
    client: triton.InferenceServerClient, wanted: list[str], binary: bool
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in wanted]
    result = client.infer("intent", [texts_tensor("text", [ORDER, WEATHER], binary)], outputs=outputs)
    sent = result.get_response()["outputs"]
    assert {output["name"] for output in sent} == set(wanted)
    assert all(("data" in output) is not binary for output in sent)
    expected = {"label": ["track_order", "out_of_scope"], "handoff": [False, True]}
    for name in ("label", "score", "handoff"):
        if name not in wanted:
            assert result.as_numpy(name) is None
        elif name == "label":
            assert as_texts(result, name) == expected[name]
        elif name == "handoff":
            assert result.as_numpy(name).tolist() == expected[name]


def test_triton_mixes_binary_and_json_outputs(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput(n, binary_data=b) for n, b in (("score", True), ("label", False))]
    result = client.infer("intent", [texts_tensor("text", [ORDER], True)], outputs=outputs)
    assert as_texts(result, "label") == ["track_order"]
    assert result.as_numpy("score").shape == (1,)


@both_modes
@pytest.mark.parametrize("history", [None, ["Down sleeping bag. Warm to minus five.", "Hiking backpack."]])
def test_triton_ranks(client: triton.InferenceServerClient, history: list[str] | None, binary: bool) -> None:
    candidates = {"sofa": "Velvet sofa for two", "tent": "Two-person tent", "stove": "Camping stove"}
    inputs = [texts_tensor("candidate", list(candidates.values()), binary)]
    if history:
        inputs.append(texts_tensor("history", history, binary))
    by_place = client.infer("recommendation", inputs)
    by_id = client.infer("recommendation", [*inputs, texts_tensor("candidate_id", list(candidates), binary)])
    assert as_texts(by_id, "id") == [list(candidates)[int(place)] for place in as_texts(by_place, "id")]
    assert set(as_texts(by_id, "id")) == set(candidates)
    scores = by_id.as_numpy("score").tolist()
    assert scores == sorted(scores, reverse=True)
    assert by_id.as_numpy("propensity").tolist() == [1.0] * 3
    drawn = client.infer("recommendation", inputs, parameters={"explore": 1.0, "top_k": 2})
    assert drawn.as_numpy("propensity").tolist() == pytest.approx([1 / 3, 1 / 2])


@both_modes
def test_triton_pinned_version_and_odd_shapes(client: triton.InferenceServerClient, binary: bool) -> None:
    version = client.get_model_metadata("intent")["versions"][0]
    column = triton.InferInput("text", [2, 1], "BYTES")
    column.set_data_from_numpy(np.array([[ORDER], ["我的订单在哪里？ \U0001f4e6"]], np.object_), binary_data=binary)
    result = client.infer("intent", [column], model_version=version)
    assert result.get_response()["model_version"] == version
    assert as_texts(result, "label")[0] == "track_order"


@pytest.mark.parametrize(
    ("model", "version", "tensor", "status", "named"),
    [
        ("nosuch", "", "text", "404", "nosuch"),
        ("intent", "999", "text", "404", "999"),
        ("intent", "", "txet", "422", "txet"),
    ],
)
def test_triton_understands_refusals(
    client: triton.InferenceServerClient, model: str, version: str, tensor: str, status: str, named: str
) -> None:
    with pytest.raises(triton.InferenceServerException, match=named) as caught:
        client.infer(model, [texts_tensor(tensor, [ORDER], True)], model_version=version)
    assert caught.value.status() == status


@pytest.fixture(scope="module")
def kserve_python() -> Path:
    """The Python of a virtual environment with kserve, made once."""
    python = KSERVE_VENV / "bin" / "python"
    marker, wanted = KSERVE_VENV / ".installed", " ".join(KSERVE_REQUIREMENTS)
    if not marker.exists() or marker.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", KSERVE_VENV], check=True)
        (KSERVE_VENV / ".gitignore").write_text("*\n")
        install = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([*install, *KSERVE_REQUIREMENTS], check=True)
        marker.write_text(wanted)
    return python


@pytest.fixture(scope="module")
def kserve(server: Server, kserve_python: Path) -> dict[str, Any]:
    """What kserve's client saw, asked once for all tests."""
    script = ROOT / "tests" / "helpers" / "kserve_client.py"
    result = subprocess.run(
        [kserve_python, script, server.url], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen


@pytest.mark.slow  # an environment of its own is installed for it; Triton's client speaks the same protocol
def test_kserve_health(kserve: dict[str, Any]) -> None:
    assert kserve["live"] is True
    assert kserve["ready"] is True
    assert kserve["model_ready"] is True
    assert kserve["unknown_model_ready"] is False


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["plain", "binary"])
def test_kserve_infers(kserve: dict[str, Any], mode: str) -> None:
    answer = kserve[mode]
    assert (answer["id"], answer["model_name"]) == ("mine", "intent")
    assert answer["outputs"]["label"] == ["track_order", "out_of_scope"]
    assert answer["outputs"]["handoff"] == [False, True]
    assert all(0 < score <= 1 for score in answer["outputs"]["score"])
