"""A ranking request's options: what is refused, what is left out, and that reasons add up to the score."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from export.errors import BundleError
from models.tasks.event_names import RATINGS, RatingScale
from models.tasks.ranker import Features, Ranker, Rate
from models.tasks.reasons import Contributions, reasons
from models.tasks.recommendation import RankRequest, Recommendation
from serve.api.oip import parse_infer
from serve.api.validation import validate
from serve.errors import InvalidRequest

DIMENSIONS = 4


def _ranker() -> Ranker:
    """One that knows the items 0 to 9, of which each has a price and a weight."""
    draw = np.random.default_rng(5)
    arrays = {
        "item_vectors": draw.normal(size=(10, DIMENSIONS)),
        "history_vectors": draw.normal(size=(10, DIMENSIONS)),
        "item_terms": draw.normal(size=10),
        "item_features": draw.normal(size=(10, 2)),
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}

    def features(*names: str) -> Features:
        k = len(names)
        scale = np.full(k, 2.0)
        return Features(names, np.ones(k), scale, draw.normal(size=k), draw.normal(size=(k, DIMENSIONS)), DIMENSIONS)

    ids = [str(i) for i in range(10)]
    return Ranker(ids, arrays, -1.1, Rate(0.4, 0.5), features("price", "weight"), features("age"), features())


class _Bundle:
    """What a task reads of a bundle."""

    path = "bundle"

    class manifest:  # noqa: N801
        labels: tuple[str, ...] = ()

    def asset(self, name: str) -> Any:
        return json.loads(json.dumps({**_ranker().to_bundle()[0], RATINGS: RatingScale(7.75, 10.0)._asdict()}[name]))

    def tower(self, name: str) -> Any:
        return _ranker().to_bundle()[1][name]


@pytest.fixture(scope="module")
def task() -> Recommendation:
    return Recommendation(_Bundle())  # type: ignore[arg-type]


def request(count: int = 4, **options: Any) -> dict[str, Any]:
    candidates = [
        {"id": str(i), "text": f"item {i}", "features": {"price": 10.0 * i, "weight": 1.0}} for i in range(count)
    ]
    return {"candidates": candidates, **options}


def answer(task: Recommendation, body: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    asked = validate(RankRequest, json.loads(json.dumps(body)))
    read = len(task.texts(asked))
    output = np.random.default_rng(seed).normal(size=(read, 2 * DIMENSIONS + 1)).astype(np.float32)
    return task.decode(asked, output, [False] * read)


HISTORY = ["item 1", {"id": "x", "text": "item 2"}, {"id": "3", "text": "now called otherwise"}]

REFUSED = [
    ({"diversity": 1.1}, "diversity: Input should be less than or equal to 1"),
    ({"diversity": -0.1}, "diversity: Input should be greater than or equal to 0"),
    ({"diversity": "0.5"}, "diversity: Input should be a valid number"),
    ({"diversity": None}, "diversity: Input should be a valid number"),
    ({"explore": 2}, "explore: Input should be less than or equal to 1"),
    ({"explore": True}, "explore: Input should be a valid number"),
    ({"explore": "0.5"}, "explore: Input should be a valid number"),
    ({"explore": 1.0001}, "explore: Input should be less than or equal to 1"),
    ({"explore": -0.1}, "explore: Input should be greater than or equal to 0"),
    ({"diversity": True}, "diversity: Input should be a valid number"),
    ({"top_k": "2"}, "top_k: Input should be a valid integer"),
    ({"top_k": 1.5}, "top_k: Input should be a valid integer"),
    ({"explain": 1}, "explain: Input should be a valid boolean"),
    ({"exclude_seen": "yes"}, "exclude_seen: Input should be a valid boolean"),
    ({"top_k": 5}, "top_k: is 5, and there are 4 candidates; leave it out for an answer with all"),
    ({"top_k": 0}, "top_k: Input should be greater than or equal to 1"),
    ({"candidates": []}, "candidates: List should have at least 1 item"),
    (
        {"candidates": [{"id": name, "text": "a mug"} for name in "abcb"]},
        "candidates: [1] and [3] have the same id, 'b'; send each item once",
    ),
]


@pytest.mark.parametrize(("wrong", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(RankRequest, request(**wrong))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_must_be_finite(value: float) -> None:
    user = {"features": {"age": value}}
    for wrong in ({"diversity": value}, {"explore": value}, {"user": user}, {"context": {"hour": value}}):
        with pytest.raises(InvalidRequest, match=next(iter(wrong))):
            validate(RankRequest, request(**wrong))


def test_two_faults_are_told_apart() -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(RankRequest, request(candidates=[{"id": "a", "text": " "}], top_k=7))
    assert [field["field"] for field in caught.value.body()["fields"]] == ["candidates.0.text"]


@pytest.mark.parametrize("count", [1, 100, 1000])
@pytest.mark.parametrize("options", [{}, {"diversity": 0.5}, {"explore": 0.5}, {"diversity": 1.0, "explore": 1.0}])
def test_any_number_of_candidates(task: Recommendation, count: int, options: dict[str, Any]) -> None:
    predictions = answer(task, request(count, explain=True, user={"history": HISTORY}, **options))
    assert {prediction["id"] for prediction in predictions} == {str(i) for i in range(count)}
    assert all(("propensity" in prediction) == ("explore" in options) for prediction in predictions)
    cut = answer(task, request(count, top_k=1, **options))
    assert len(cut) == 1


def test_without_exploration_an_answer_is_always_the_same_and_with_it_the_scores_are(task: Recommendation) -> None:
    plain, body = answer(task, request(50)), request(50, explore=1.0)
    assert plain == answer(task, request(50, explore=0, diversity=0, explain=False, exclude_seen=False))
    drawn, again = answer(task, body), answer(task, body)
    assert [p["id"] for p in drawn] != [p["id"] for p in again]
    scores = {p["id"]: p["score"] for p in plain}
    assert {p["id"]: p["score"] for p in drawn} == scores == {p["id"]: p["score"] for p in again}


def test_what_the_user_has_is_left_out(task: Recommendation) -> None:
    """By its id; by its text only where the history has no id: two items may have one text."""
    body = request(6, user={"history": HISTORY}, exclude_seen=True)
    assert {prediction["id"] for prediction in answer(task, body)} == {"0", "2", "4", "5"}
    assert len(answer(task, {**body, "exclude_seen": False})) == 6
    assert len(answer(task, {**body, "top_k": 6})) == 4
    assert answer(task, {**request(2), "user": {"history": ["item 0", "ITEM  1"]}, "exclude_seen": True}) == []


@pytest.mark.parametrize("history", [[], HISTORY, [f"text {i}" for i in range(30)]])
def test_reasons_sum_to_the_log_odds_of_the_score(task: Recommendation, history: list[Any]) -> None:
    for prediction in answer(task, request(20, explain=True, user={"history": history})):
        total = sum(reason["contribution"] for reason in prediction["reasons"])
        assert 1 / (1 + math.exp(-total)) == pytest.approx(prediction["score"], abs=3e-5)
        assert prediction["reasons"][-1]["source"] == "base"
        used = [reason["index"] for reason in prediction["reasons"] if "index" in reason]
        newest = range(max(0, len(history) - task.options.history), len(history))
        assert set(used) <= set(newest)
        ids = {reason["index"]: reason["id"] for reason in prediction["reasons"] if "id" in reason}
        itself = {} if prediction["id"] == "3" else {2: "3"}  # an item is no reason for itself
        assert ids == ({1: "x", **itself} if history == HISTORY else {})
    assert "reasons" not in answer(task, request(1))[0]


READ = [
    ("known items need no text", {"history": [{"id": "1"}]}, [], ["1"]),
    ("unknown ones do", {"history": [{"id": "x", "text": "a"}, "b"]}, ["a", "b"], ["x", "b"]),
    ("without one they do not count", {"history": [{"id": "x"}, {"id": "2"}]}, [], ["2"]),
    ("twice is once", {"history": [{"id": "1"}, {"id": "2"}, {"id": "1", "event": "view"}]}, [], ["2", "1"]),
    ("two texts: the newest", {"history": [{"id": "x", "text": "a"}, {"id": "x", "text": "b"}]}, ["b"], ["x"]),
    ("a known one is read by its id", {"history": [{"id": "1", "text": "a"}, {"id": "1", "text": "b"}]}, [], ["1"]),
    ("by time", {"history": [{"id": "1", "time": 9}, {"id": "2", "time": "1970-01-01T00:00:05Z"}]}, [], ["2", "1"]),
    ("not all have one", {"history": [{"id": "1", "time": 9}, {"id": "2"}]}, [], ["1", "2"]),
    ("the newest", {"history": [{"id": str(i % 10)} for i in range(5000)]}, [], [str(i) for i in range(10)]),
    ("few unknown ones", {"history": [f"t{i}" for i in range(90)]}, [f"t{i}" for i in range(70, 90)], None),
]


@pytest.mark.parametrize(("user", "texts", "keys"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_what_is_read_of_a_history(
    task: Recommendation, user: dict[str, Any], texts: list[str], keys: list[str] | None
) -> None:
    asked = validate(RankRequest, {"user": user, "candidates": [{"id": "0", "text": "known"}]})
    assert task.texts(asked) == texts
    read = task._read(asked)
    assert read.past_keys == (keys or texts)
    assert [asked.user.history[place] for place in read.past_places] != []


def test_an_item_that_was_seen_and_chosen_is_chosen(task: Recommendation) -> None:
    history = [{"id": "1", "event": "buy"}, {"id": "1", "event": "view"}, {"id": "2", "event": "dislike"}]
    asked = validate(RankRequest, request(1, user={"history": history}))
    read = task._read(asked)
    assert (read.past_keys, read.chosen, read.weights) == (["1", "2"], [True, False], [3.0, 1.0])


WRONG = [
    ({"id": "1", "event": "stare"}, "there is no event 'stare'; it must be one of: view, click"),
    ({"id": "1", "event": "rating"}, "a rating needs a 'value'"),
    ({"event": "click"}, "give an 'id' or a 'text'"),
    ({"id": "1", "event": "rating", "value": -1}, "the value of a rating is -1; it must be its number of stars"),
    ({"id": "1", "event": "rating", "value": "4"}, "value: Input should be a valid number"),
    ({"id": "1", "event": "rating", "value": True}, "value: Input should be a valid number"),
    ({"id": "1", "event": "dwell", "value": -1}, "the value of a dwell is -1; it must be its seconds"),
    ({"id": "1", "event": "dwell"}, "a dwell needs a 'value'"),
    ({"id": "1", "event": "click", "value": 3}, "a click has no 'value'"),
    ({"id": "1", "time": "yesterday"}, "time"),
    ({"id": "1", "time": "2024-05-01T10:00:00"}, "time"),
    ({"id": "1", "time": True}, "time"),
    ({"id": ""}, "id"),
    ({"id": "1", "text": " "}, "text"),
    ({"id": "1", "features": {"price": "cheap"}}, "features"),
]


@pytest.mark.parametrize(("item", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_wrong_history_items_are_refused(item: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(RankRequest, request(1, user={"history": [item]}))
    assert sentence in str(caught.value)


def test_a_rating_above_the_scale_of_training_is_refused_by_the_version(task: Recommendation) -> None:
    def rating(value: float) -> RankRequest:
        rated = {"id": "1", "event": "rating", "value": value}
        return validate(RankRequest, request(1, user={"history": ["a text", rated]}))

    assert task.fault(rating(10.0)) is None
    assert (task.fault(rating(11.0)) or "").startswith("user.history.1.value: is 11, and the ratings that this")


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"id": "1", "event": "rating", "value": "4"}, "user.history.0.item.value"), (" ", "user.history.0.text"),
        ({"id": "1", "event": "stare"}, "user.history.0.item"), (5, "user.history.0.item"),
        ({"id": "1", "features": {"price": float("inf")}}, "user.history.0.item.features.price"),
    ],
)  # fmt: skip
def test_a_fault_in_a_history_is_told_once_with_its_field(item: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(RankRequest, request(1, user={"history": [item]}))
    assert [fault["field"] for fault in caught.value.body()["fields"]] == [field]


def test_a_history_has_at_most_ten_thousand_items(task: Recommendation) -> None:
    assert len(answer(task, request(3, user={"history": [{"id": "1"}] * 10_000}))) == 3
    with pytest.raises(InvalidRequest, match="10000"):
        validate(RankRequest, request(1, user={"history": [{"id": "1"}] * 10_001}))


def test_what_was_chosen_and_what_was_not_count_apart(task: Recommendation) -> None:
    def score(event: str) -> float:
        body = {"candidates": [{"id": "2", "text": "t"}], "user": {"history": [{"id": "1", "event": event}]}}
        return float(answer(task, body)[0]["score"])

    assert score("click") != score("view") == score("dislike")


def test_unknown_features_are_ignored_and_known_ones_count(task: Recommendation) -> None:
    plain = answer(task, request(3))
    assert answer(task, request(3, context={"hour": 3}, user={"features": {"height": 2}})) == plain
    candidates = [{**item, "features": {**item["features"], "size": 9.0}} for item in request(3)["candidates"]]
    assert answer(task, {"candidates": candidates}) == plain
    assert answer(task, request(3, user={"features": {"age": 40}})) != plain


def test_a_bundle_of_an_older_version_says_what_to_do() -> None:
    class Older(_Bundle):
        def tower(self, name: str) -> Any:
            return None

    with pytest.raises(BundleError, match="flywheel train recommendation"):
        Recommendation(Older())  # type: ignore[arg-type]


def test_what_is_not_listed_is_summed_up() -> None:
    found = Contributions(
        history=np.array([[0.01 * i for i in range(25)]]),
        features=np.array([[-5.0, 0.0]]),
        feature_names=("price", "weight"),
        item=np.array([0.3]),
        user=np.array([0.0]),
        base=-0.123456,
    )
    given = reasons(found, 0, [{"index": i} for i in range(25)])
    assert given[0] == {"source": "feature", "name": "price", "contribution": -5.0}
    assert {"source": "history", "others": 15, "contribution": 1.05} in given
    assert [row["index"] for row in given if "index" in row] == list(range(24, 14, -1))
    assert not [row for row in given if row.get("name") == "weight" or row["source"] == "user"]
    assert sum(row["contribution"] for row in given) == pytest.approx(found.logits[0], abs=5e-5)


def test_an_inference_request_has_the_options_in_its_parameters() -> None:
    tensor = {"name": "candidate", "datatype": "BYTES", "shape": [2], "data": ["a mug", "a tent"]}

    def parsed(**parameters: Any) -> RankRequest:
        body = {"inputs": [tensor], "parameters": {"binary_data_output": False, "sequence_id": 7, **parameters}}
        return validate(RankRequest, parse_infer(Recommendation, json.dumps(body).encode(), None).request)

    asked = parsed(explore=0.25, diversity=0.5, exclude_seen=True, top_k=1)
    assert (asked.explore, asked.diversity, asked.exclude_seen, asked.top_k) == (0.25, 0.5, True, 1)
    assert parsed().explore == 0
    for wrong, field in (({"diversity": 2}, "diversity"), ({"explore": "1"}, "explore"), ({"top_k": 3}, "top_k: is 3")):
        with pytest.raises(InvalidRequest, match=field):
            parsed(**wrong)


@pytest.mark.parametrize(
    ("count", "ids", "sentence"),
    [(2, ["a", "a"], "have the same id, 'a'"), (2, ["a"], "candidate_id has 1 elements, candidate has 2"),
     (0, [], "candidate")],
)  # fmt: skip
def test_an_inference_request_is_refused_as_any_other(count: int, ids: list[str], sentence: str) -> None:
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data}
        for name, data in (("candidate", ["a mug"] * count), ("candidate_id", ids))
    ]
    with pytest.raises(InvalidRequest, match=sentence):
        validate(RankRequest, parse_infer(Recommendation, json.dumps({"inputs": inputs}).encode(), None).request)


def test_an_inference_answer_always_has_propensities() -> None:
    drawn = [{"id": "a", "score": 0.5, "propensity": 0.25}]
    assert Recommendation.tensors_from_predictions(drawn)["propensity"] == [0.25]
    assert Recommendation.tensors_from_predictions([{"id": "a", "score": 0.5}])["propensity"] == [1.0]
