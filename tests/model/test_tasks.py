"""Each task with its trained bundle, found and not listed: a new file is tested by being there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import Bundle
from export.session import OnnxSession
from models.tasks.base import Task, all_tasks

DATATYPES = {"BYTES": str, "FP32": float, "INT32": int, "BOOL": bool}


@pytest.fixture(scope="module", params=sorted(all_tasks()))
def task(request: pytest.FixtureRequest) -> type[Task]:
    return all_tasks()[request.param]


@pytest.fixture(scope="module")
def session(task: type[Task], bundle_of: Callable[[str], Path]) -> OnnxSession:
    return OnnxSession(Bundle.open(bundle_of(task.name)), providers="cpu")


def predictions(task: Task, session: OnnxSession, body: dict[str, Any]) -> list[dict[str, Any]]:
    """As a replica answers."""
    request = task.Request.model_validate(body)
    encoded = session.encoder.encode(task.texts(request))
    output = task.activate(session.run([row.ids for row in encoded]))
    return task.decode(request, output, [row.truncated for row in encoded])


def sample(tensor: str, text: str = "a tent for two") -> list[Any]:
    return [{"candidate_id": "a", "published": "2026-05-01T09:30:00Z"}.get(tensor, text)]


def test_its_bundle_answers_the_example(task: type[Task], session: OnnxSession) -> None:
    assert session.bundle.manifest.kind == task.kind
    answers = predictions(task(session.bundle), session, task.example)
    assert answers
    for answer in answers:
        assert 0 <= answer["score"] <= 1
        assert "truncated" not in answer
    columns = task.tensors_from_predictions(answers)
    assert list(columns) == [tensor.name for tensor in task.outputs]
    assert {len(column) for column in columns.values()} == {len(answers)}
    for tensor in task.outputs:
        assert {type(value) for value in columns[tensor.name]} == {DATATYPES[tensor.datatype]}


@pytest.mark.parametrize("optional", [False, True], ids=["required tensors", "all tensors"])
def test_a_request_of_one_text_as_tensors(task: type[Task], session: OnnxSession, optional: bool) -> None:
    tensors = {tensor.name: sample(tensor.name) for tensor in task.inputs if optional or not tensor.optional}
    answers = predictions(task(session.bundle), session, task.request_from_tensors(tensors))
    assert len(answers) == 1
    assert len(task.tensors_from_predictions(answers)["score"]) == 1


def test_a_text_that_was_cut_says_so(task: type[Task], session: OnnxSession) -> None:
    required = {tensor.name: sample(tensor.name, "tent " * 500) for tensor in task.inputs if not tensor.optional}
    (answer,) = predictions(task(session.bundle), session, task.request_from_tensors(required))
    assert answer["truncated"] is True


def test_an_output_for_every_text_and_none_from_another_request(task: type[Task], session: OnnxSession) -> None:
    """Decoding is stateless: the same request twice, with another between, is answered the same."""
    instance = task(session.bundle)
    other = {tensor.name: sample(tensor.name, "velvet cushion") for tensor in task.inputs if not tensor.optional}
    first = predictions(instance, session, task.example)
    predictions(instance, session, task.request_from_tensors(other))
    assert predictions(instance, session, task.example) == first


def test_classifier_outputs_may_be_anything_finite(task: type[Task], session: OnnxSession) -> None:
    """Large logits overflow nothing."""
    if task.kind != "classifier":
        pytest.skip("a ranker's outputs are projections")
    labels = len(session.bundle.manifest.labels)
    logits = np.zeros((2, labels), np.float32)
    logits[0, 0], logits[1, 1] = 1e4, 1e4
    request = task.Request.model_validate({"texts": ["a", "b"]})
    instance = task(session.bundle)
    answers = instance.decode(request, instance.activate(logits), [False, False])
    assert [answer["label"] for answer in answers] == list(session.bundle.manifest.labels[:2])
    assert [answer["score"] for answer in answers] == [1.0, 1.0]
