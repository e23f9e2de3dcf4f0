"""What events mean in a request and in feedback, and which of them are refused."""

from __future__ import annotations

from typing import Any

import pytest

from models.tasks.event_names import EVENT_KINDS, RatingScale, outcome
from models.tasks.recommendation import Recommendation
from serve.api.validation import parse_json, validate
from serve.errors import InvalidRequest, NotJson
from serve.feedback.intake import Feedback

GOOD = [
    ("view", None, False, 1.0), ("click", None, True, 1.0), ("like", None, True, 2.0), ("buy", None, True, 3.0),
    ("dislike", None, False, 1.0), ("rating", 0, False, 1.0), ("rating", 3.5, False, 1.0), ("rating", 4, True, 1.0),
    ("rating", 5.0, True, 1.0), ("dwell", 0, False, 1.0), ("dwell", 29.9, False, 1.0), ("dwell", 1e9, True, 1.0),
]  # fmt: skip
WRONG = [
    ({"event": "stare"}, "event: there is no event 'stare'; it must be one of: view, click, like, buy, dislike"),
    ({"event": "rating"}, "value: a rating needs a 'value'"),
    ({"event": "dwell"}, "value: a dwell needs a 'value'"),
    ({"event": "rating", "value": -1}, "value: the value of a rating is -1; it must be its number of stars"),
    ({"event": "dwell", "value": -0.5}, "value: the value of a dwell is -0.5; it must be its seconds, from 0 up"),
    ({"event": "click", "value": 1}, "value: a click has no 'value'; only a rating and a dwell have one"),
    ({"event": "rating", "value": "5"}, "value: Input should be a valid number"),
    ({"event": "rating", "value": True}, "value: Input should be a valid number"),
    ({"event": "rating", "value": float("nan")}, "value: Input should be a finite number"),
    ({"event": "dwell", "value": float("inf")}, "value: Input should be a finite number"),
    ({"value": 5}, "body: a correction of a ranking needs 'id', 'item_id' and 'event'"),
    ({"event": "like", "label": "good"}, "label: a ranking has none"),
]


def error_of(body: dict[str, Any]) -> str | None:
    """Why feedback on a ranking is refused; None if it is taken."""
    try:
        feedback = validate(Feedback, {"id": "an id", "item_id": "an item", **body})
    except InvalidRequest as error:
        return str(error)
    return Recommendation.correction_error(feedback, (), new_labels=False)


@pytest.mark.parametrize(("event", "value", "chosen", "weight"), GOOD)
def test_each_event_is_taken_and_says_whether_the_item_was_chosen(
    event: str, value: float | None, chosen: bool, weight: float
) -> None:
    assert outcome(event, value) == (chosen, weight)
    assert error_of({"event": event, "value": value}) is None
    assert {name for name, *_ in GOOD} == EVENT_KINDS.keys()


@pytest.mark.parametrize(("value", "liked"), [(7.0, False), (8.0, True)])
def test_a_rating_means_what_it_meant_in_training(value: float, liked: bool) -> None:
    assert outcome("rating", value, RatingScale(7.75, 10.0))[0] == liked


@pytest.mark.parametrize(("body", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_what_is_refused(body: dict[str, Any], sentence: str) -> None:
    assert (error_of(body) or "").startswith(sentence)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, None])
@pytest.mark.parametrize("event", ["rating", "dwell"])
def test_no_value_that_is_no_number_has_a_meaning(event: str, value: float | None) -> None:
    with pytest.raises(ValueError, match="value"):
        outcome(event, value)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e999"])
def test_no_body_has_such_a_number(literal: str) -> None:
    with pytest.raises(NotJson):
        parse_json(f'{{"event": "rating", "value": {literal}}}'.encode())
