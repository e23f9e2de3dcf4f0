"""The contract of every task in models/tasks, found and not listed: a new file is tested by being there."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from models.tasks.base import Task, TaskOptions, UnknownTaskError, all_tasks, get_task
from models.training.families import family_of
from serve.feedback.intake import Feedback
from tests.helpers.command import ROOT

DATATYPES = {"BYTES": str, "FP32": float, "INT32": int, "BOOL": bool}


@pytest.fixture(scope="module", params=sorted(all_tasks()))
def task(request: pytest.FixtureRequest) -> type[Task]:
    return all_tasks()[request.param]


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


@pytest.mark.parametrize("text", ["", "  \n", "\u200b\u200b", 7, None])
def test_a_text_with_nothing_in_it_is_refused(task: type[Task], text: object) -> None:
    tensors = {tensor.name: [text] for tensor in task.inputs if not tensor.optional}
    with pytest.raises(ValidationError):
        task.Request.model_validate(task.request_from_tensors(tensors))
