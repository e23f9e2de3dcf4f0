"""The Open Inference Protocol's parameters: what they switch, and what they tell."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from models.tasks.recommendation import Recommendation
from models.tasks.sentiment import Sentiment
from serve.api import oip
from serve.errors import InvalidRequest

TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a text"]}


def wanted(**request: Any) -> dict[str, bool]:
    return oip.parse_infer(Sentiment, orjson.dumps({"inputs": [TENSOR], **request}), None).wanted


def test_binary_data_is_what_the_boolean_says() -> None:
    label, score = {"name": "label"}, {"name": "score"}
    assert wanted() == {"label": False, "score": False, "confidence": False, "topics": False}
    assert wanted(parameters={"binary_data_output": True}) == {
        "label": True,
        "score": True,
        "confidence": True,
        "topics": True,
    }
    assert wanted(outputs=[{**label, "parameters": {"binary_data": True}}, score]) == {"label": True, "score": False}
    assert wanted(parameters={"binary_data_output": None}) == dict.fromkeys(wanted(), False)
    off = {**label, "parameters": {"binary_data": False}}
    assert wanted(parameters={"binary_data_output": True}, outputs=[off]) == {"label": False}


@pytest.mark.parametrize("value", ["false", "true", "", 0, 1, [], {}])
def test_binary_data_that_is_no_boolean_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"parameters\.binary_data_output: .* must be true or false"):
        wanted(parameters={"binary_data_output": value})
    with pytest.raises(InvalidRequest, match=r"outputs\.label\.parameters\.binary_data: .* must be true or false"):
        wanted(outputs=[{"name": "label", "parameters": {"binary_data": value}}])


def test_a_boolean_is_no_size_and_no_text() -> None:
    with pytest.raises(InvalidRequest, match="binary_data_size is True"):
        wanted(inputs=[{**TENSOR, "parameters": {"binary_data_size": True}}])
    with pytest.raises(InvalidRequest, match="element 0 is not BYTES"):
        wanted(inputs=[{**TENSOR, "data": [True]}])


@pytest.mark.parametrize(
    ("cut", "expected"),
    [([], {}), ([1], {"truncated": True, "truncated_elements": "1"}), ([0, 2], {"truncated_elements": "0,2"})],
)
def test_an_answer_says_which_texts_were_cut(cut: list[int], expected: dict[str, Any]) -> None:
    predictions: list[dict[str, Any]] = [{"id": name, "score": 0.5} for name in "abc"]
    for index in cut:
        predictions[index]["truncated"] = True
    answer = {"id": "1", "model_name": "recommendation", "model_version": "2", "predictions": predictions}
    for binary in (False, True):
        body, headers = oip.write_infer(Recommendation, answer, {"id": binary})
        head = orjson.loads(body[: int(headers.get(oip.HEADER_LENGTH, len(body)))])
        assert head["parameters"].items() >= {"prediction_id": "1", **expected}.items()
        assert ("truncated" in head["parameters"]) is bool(cut)
