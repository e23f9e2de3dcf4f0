"""The contract of every task in models/tasks, found and not listed: a new file is tested by being there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from export.bundle import Bundle
from export.session import OnnxSession
from models.tasks.base import Task, TaskOptions, UnknownTaskError, all_tasks, get_task
from models.training.families import family_of
from serve.feedback.intake import Feedback
from tests.conftest import ROOT

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
    return [text if tensor != "candidate_id" else "a"]


def test_the_three_tasks_are_found() -> None:
    assert set(all_tasks()) >= {"intent", "sentiment", "recommendation"}
    with pytest.raises(UnknownTaskError, match="There is no task 'nope'; there are: intent, "):
        get_task("nope")


def test_every_task_says_what_it_is(task: type[Task]) -> None:
    assert task.kind in ("classifier", "ranker")
    assert task.summary.endswith(".")
    assert task.max_length > 2
    assert {tensor.datatype for tensor in (*task.inputs, *task.outputs)} <= set(DATATYPES)
    assert any(not tensor.optional for tensor in task.inputs)
    assert issubclass(task.Options, TaskOptions)
    assert task.Options() is not None, "every option has a default"


def test_every_task_has_a_family(task: type[Task]) -> None:
    assert family_of(task.name).kind == task.kind


def test_the_correction_that_the_documentation_shows_is_one(task: type[Task]) -> None:
    def error(**fields: str) -> str | None:
        shown = Feedback(id="a prediction", **fields)
        return task.correction_error(shown, ["a label"], new_labels=False)

    assert error(**task.correction_example) is None
    for missing in task.correction_example:
        rest = {name: value for name, value in task.correction_example.items() if name != missing}
        assert error(**rest), f"without {missing}"
    assert error(**task.correction_example, **{"label": "a label"} if task.kind == "ranker" else {"item_id": "an item"})


def test_every_task_is_in_flywheel_yaml(task: type[Task]) -> None:
    entry = yaml.safe_load((ROOT / "flywheel.yaml").read_text())["tasks"][task.name]
    task.Options.model_validate(entry.get("options", {}))


def test_the_example_validates(task: type[Task]) -> None:
    request = task.Request.model_validate(task.example)
    assert task.Request.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize("model", ["Request", "Options"])
def test_unknown_keys_are_refused(task: type[Task], model: str) -> None:
    known = task.example if model == "Request" else {}
    with pytest.raises(ValidationError, match="extra_forbidden"):
        getattr(task, model).model_validate({**known, "nonsense": 1})


def test_an_empty_request_is_refused(task: type[Task]) -> None:
    with pytest.raises(ValidationError):
        task.Request.model_validate({})


def test_its_bundle_answers_the_example(task: type[Task], session: OnnxSession) -> None:
    assert session.bundle.manifest.kind == task.kind
    answers = predictions(task(session.bundle), session, task.example)
    assert answers
    for answer in answers:
        for tensor in task.outputs:
            assert isinstance(answer[tensor.name], DATATYPES[tensor.datatype])
        assert 0 <= answer["score"] <= 1
        assert "truncated" not in answer
    columns = task.tensors_from_predictions(answers)
    assert list(columns) == [tensor.name for tensor in task.outputs]
    assert {len(column) for column in columns.values()} == {len(answers)}


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


@pytest.mark.parametrize("text", ["", "  \n", "\u200b\u200b", 7, None])
def test_a_text_with_nothing_in_it_is_refused(task: type[Task], text: object) -> None:
    tensors = {tensor.name: [text] for tensor in task.inputs if not tensor.optional}
    with pytest.raises(ValidationError):
        task.Request.model_validate(task.request_from_tensors(tensors))


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
        pytest.skip("a ranker's vectors are unit vectors")
    labels = len(session.bundle.manifest.labels)
    logits = np.zeros((2, labels), np.float32)
    logits[0, 0], logits[1, 1] = 1e4, 1e4
    request = task.Request.model_validate({"texts": ["a", "b"]})
    instance = task(session.bundle)
    answers = instance.decode(request, instance.activate(logits), [False, False])
    assert [answer["label"] for answer in answers] == list(session.bundle.manifest.labels[:2])
    assert [answer["score"] for answer in answers] == [1.0, 1.0]
