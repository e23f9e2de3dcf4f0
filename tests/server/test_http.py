"""The HTTP contract as a well-behaved client meets it: every path of it but feedback."""

from __future__ import annotations

import math
import re
from typing import Any
from uuid import uuid4

import orjson
import pytest
from openapi_spec_validator import validate
from prometheus_client.parser import text_string_to_metric_families

from models.tasks.base import all_tasks
from tests.helpers.contract import EXAMPLES, NEGATIVE, POSITIVE, TASKS, assert_error
from tests.helpers.server import Server

every_task = pytest.mark.parametrize("task", TASKS)


def predict(server: Server, task: str, **request: Any) -> list[dict[str, Any]]:
    response = server.post(f"/v2/models/{task}/predict", json=request)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["id"]
    assert body["model_name"] == task
    predictions: list[dict[str, Any]] = body["predictions"]
    return predictions


def loaded_version(server: Server, task: str) -> str:
    return str(server.get(f"/v2/models/{task}").json()["versions"][0])


def test_live_and_ready(server: Server) -> None:
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}


def test_server_metadata(server: Server) -> None:
    metadata = server.get("/v2").json()
    assert metadata["name"] == "flywheel"
    assert metadata["version"]
    assert "binary_tensor_data" in metadata["extensions"]
    assert sorted(metadata["models"]) == sorted(TASKS)


@every_task
def test_model_metadata(server: Server, task: str) -> None:
    version = loaded_version(server, task)
    for path in (f"/v2/models/{task}", f"/v2/models/{task}/versions/{version}"):
        metadata = server.get(path).json()
        assert metadata["name"] == task
        assert metadata["versions"] == [version]
        assert [tensor["name"] for tensor in metadata["inputs"]] == [t.name for t in all_tasks()[task].inputs]
        assert [tensor["name"] for tensor in metadata["outputs"]] == [t.name for t in all_tasks()[task].outputs]
        details = metadata["version_details"][0]
        assert (details["version"], details["alias"], details["traffic"]) == (version, "champion", 1.0)


@every_task
def test_model_ready(server: Server, task: str) -> None:
    version = loaded_version(server, task)
    for path in (f"/v2/models/{task}/ready", f"/v2/models/{task}/versions/{version}/ready"):
        response = server.get(path)
        assert response.status_code == 200
        assert response.json() == {"name": task, "ready": True}


@pytest.mark.parametrize(
    ("text", "label", "handoff"),
    [
        ("where is my order 88231?", "track_order", False),
        ("i forgot my password", "recover_password", False),
        ("will it rain tomorrow", "out_of_scope", True),
    ],
)
def test_intent(server: Server, text: str, label: str, handoff: bool) -> None:
    [prediction] = predict(server, "intent", text=text)
    assert prediction["label"] == label
    assert prediction["handoff"] is handoff
    assert ("answer" in prediction) is not handoff
    assert 0 < prediction["score"] <= 1
    ranked = [candidate["score"] for candidate in prediction["top_k"]]
    assert len(ranked) == 3
    assert ranked == sorted(ranked, reverse=True)


def test_a_message_with_two_wishes_has_both_alone_and_among_others(server: Server) -> None:
    texts = ["where is my order 88231?", "cancel the order and where is my refund", "i forgot my password"]
    together = predict(server, "intent", texts=texts)
    for text, prediction in zip(texts, together, strict=True):
        assert predict(server, "intent", text=text) == [prediction]
    assert [one.get("intents") is None for one in together] == [True, False, True]
    intents = together[1]["intents"]
    assert [texts[1][one["start"] : one["end"]] for one in intents] == ["cancel the order", "where is my refund"]
    assert [one["label"] for one in intents] == ["cancel_order", "track_refund"]
    [explained] = predict(server, "intent", text=texts[1], explain=True)
    assert [word["word"] for word in explained.pop("explanation")["words"]] == texts[1].split()
    assert explained == together[1]


def test_who_asks_for_a_person_is_handed_off_with_an_answer(server: Server) -> None:
    [prediction] = predict(server, "intent", text="let me talk to a human agent please")
    assert prediction["label"] == "contact_human_agent"
    assert (prediction["handoff"], prediction["reason"]) == (True, "asked_for_person")
    assert prediction["answer"]


@pytest.mark.parametrize("task", ["intent", "sentiment"])
def test_a_classifier_says_how_confident_it_is_and_from_which_scores(server: Server, task: str) -> None:
    (details,) = server.get(f"/v2/models/{task}").json()["version_details"]
    bounds = details["confidence"]
    texts = ["where is my order 88231?", "the thing with the money", "shares", NEGATIVE, POSITIVE]
    for prediction in predict(server, task, texts=texts):
        score = prediction["score"]
        expected = "high" if score >= (bounds["high"] or 2) else "medium" if score >= (bounds["medium"] or 2) else "low"
        assert prediction["confidence"] == expected


def test_an_answer_is_filled(server: Server) -> None:
    texts = ["where is my order 88231?", "where is my order?"]
    slots = {"orders_url": "https://shop.example/{order_id}"}
    named, unnamed = predict(server, "intent", texts=texts, slots=slots, language="en")
    assert named["entities"] == [{"type": "order_id", "value": "88231", "start": 18, "end": 23}]
    assert "order 88231 is" in named["answer"]
    assert slots["orders_url"] in named["answer"]
    assert "entities" not in unnamed
    assert "your order is" in unnamed["answer"]
    assert not {"missing"} & (named.keys() | unnamed.keys())
    for text, together in zip(texts, (named, unnamed), strict=True):
        [alone] = predict(server, "intent", text=text, slots=slots)
        assert (alone["answer"], alone.get("entities")) == (together["answer"], together.get("entities"))
    [prediction] = predict(server, "intent", text=texts[0])
    assert prediction["missing"] == ["orders_url"]
    for bad in ({"Order": "7"}, {"order_id": 7}, {"order_id": ""}):
        assert_error(server.post("/v2/models/intent/predict", json={"text": "hi", "slots": bad}), 422)


@pytest.mark.parametrize(("text", "label"), [(NEGATIVE, "negative"), (POSITIVE, "positive")])
def test_sentiment(server: Server, text: str, label: str) -> None:
    [prediction] = predict(server, "sentiment", text=text, topic="shops")
    assert prediction["label"] == label
    assert prediction["topics"] == ["shops"]
    assert prediction["score"] == max(prediction["scores"].values()) == prediction["scores"][label]
    assert sum(prediction["scores"].values()) == pytest.approx(1, abs=1e-4)


def test_topics_are_found_in_documents_and_over_infer(server: Server) -> None:
    published = "2026-11-02T09:30:00+09:00"
    documents = [
        {"text": "Airlines sink as Brent tops $90", "published": published, "document_id": "wire-1"},
        {"text": "A shop opens", "topic": "carmaker"},
        {"text": "美联储宣布降息"},
    ]
    topics = [["airlines", "oil"], ["automakers"], ["central banks"]]
    predictions = predict(server, "sentiment", documents=documents)
    assert [prediction["topics"] for prediction in predictions] == topics
    columns = {
        "text": [document["text"] for document in documents],
        "topic": ["", "carmaker", ""],
        "published": [published, "", ""],
    }
    inputs = [{"name": name, "shape": [3], "datatype": "BYTES", "data": data} for name, data in columns.items()]
    inferred = server.post("/v2/models/sentiment/infer", json={"inputs": inputs})
    assert inferred.status_code == 200, inferred.text
    outputs = {output["name"]: output["data"] for output in inferred.json()["outputs"]}
    assert [orjson.loads(names) for names in outputs["topics"]] == topics
    assert outputs["label"] == [prediction["label"] for prediction in predictions]


def test_details_say_which_readers_an_answer_comes_from(server: Server) -> None:
    for task, text in (("intent", "where is my order 88231?"), ("sentiment", POSITIVE)):
        (details,) = server.get(f"/v2/models/{task}").json()["version_details"]
        assert details["readers"] in (["linear", "encoder"], ["encoder"])
        [plain] = predict(server, task, text=text)
        [detailed] = predict(server, task, text=text, details=True)
        assert detailed.pop("stages") in (["linear"], details["readers"])
        assert detailed == plain
        for wrong in ("true", 1, None):
            response = server.post(f"/v2/models/{task}/predict", json={"text": text, "details": wrong})
            assert assert_error(response, 422)["fields"][0]["field"] == "details"
    ranking = server.post("/v2/models/recommendation/predict", json={**EXAMPLES["recommendation"], "details": True})
    assert assert_error(ranking, 422)["fields"][0] == {"field": "details", "reason": "there is no such field"}


SHELF = [
    {"id": "cushion", "text": "Velvet cushion cover. Deep green, hidden zip.", "features": {"price": 19.5}},
    {"id": "tent", "text": "Two-person tent for hiking. Under one kilo.", "features": {"price": 250.0}},
    {"id": "lipstick", "text": "Matte lipstick. Dark red, lasts all day.", "features": {"price": 12.0}},
    {"id": "stove", "text": "Gas stove for camping. Folds to the size of a fist."},
]


@pytest.mark.parametrize("top_k", [None, 1, 3, 4])
def test_recommendation_is_sorted_and_cut(server: Server, top_k: int | None) -> None:
    history = ["Down sleeping bag. Warm to minus five.", {"id": "h2", "text": "Hiking backpack, 50 litres."}]
    request = {"user": {"id": "u1", "history": history}, "candidates": SHELF, "top_k": top_k}
    ranked = predict(server, "recommendation", **request)
    assert len(ranked) == min(top_k or len(SHELF), len(SHELF))
    scores = [item["score"] for item in ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_recommendation_prefers_what_is_like_the_history(server: Server) -> None:
    """Without features, so that texts alone decide."""
    candidates = [{"id": item["id"], "text": item["text"]} for item in SHELF]
    history = ["Down sleeping bag. Warm to minus five.", "Hiking backpack, 50 litres."]
    ranked = predict(server, "recommendation", user={"history": history}, candidates=candidates)
    ids = [item["id"] for item in ranked]
    assert ids.index("tent") < ids.index("lipstick")


def test_a_ranking_explains_diversifies_explores_and_leaves_out_what_was_seen(server: Server) -> None:
    history = [{"id": "h1", "text": "Down sleeping bag. Warm to minus five."}, {"id": "tent", "text": SHELF[1]["text"]}]
    body = {"user": {"id": "u1", "history": history}, "candidates": SHELF}
    plain = {item["id"]: item["score"] for item in predict(server, "recommendation", **body)}
    for item in predict(server, "recommendation", **body, explain=True):
        total = sum(reason["contribution"] for reason in item["reasons"])
        assert 1 / (1 + math.exp(-total)) == pytest.approx(item["score"], abs=3e-5)
        assert item["score"] == plain[item["id"]]
    diverse = predict(server, "recommendation", **body, diversity=1)
    assert {item["id"]: item["score"] for item in diverse} == plain
    assert diverse[0]["id"] == max(plain, key=lambda name: plain[name])
    drawn = [predict(server, "recommendation", **body, explore=1) for _ in range(20)]
    assert len({tuple(item["id"] for item in ranking) for ranking in drawn}) > 1
    assert [item["propensity"] for item in drawn[0]] == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1])
    unseen = predict(server, "recommendation", **body, exclude_seen=True)
    assert {item["id"] for item in unseen} == {"cushion", "lipstick", "stove"}
    assert predict(server, "recommendation", **{**body, "candidates": SHELF[1:2]}, exclude_seen=True) == []


@pytest.mark.parametrize("user", [{}, {"user": {}}, {"user": {"id": "new", "history": []}}])
def test_recommendation_without_history(server: Server, user: dict[str, Any]) -> None:
    ranked = predict(server, "recommendation", candidates=SHELF, **user)
    assert {item["id"] for item in ranked} == {item["id"] for item in SHELF}


@pytest.mark.parametrize(
    ("task", "cycle"),
    [
        ("intent", {"track_order": "where is my order 88231?", "recover_password": "i forgot my password"}),
        ("sentiment", {"negative": NEGATIVE, "positive": POSITIVE}),
    ],
)
def test_predictions_come_in_the_order_of_the_texts(server: Server, task: str, cycle: dict[str, str]) -> None:
    """Lengths alternate, so that batching by length has every chance to mix them up."""
    labels = [list(cycle)[(i * i) % 5 % 2] for i in range(100)]
    texts = [cycle[label] + " thanks" * (i % 7) for i, label in enumerate(labels)]
    assert [prediction["label"] for prediction in predict(server, task, texts=texts)] == labels


@pytest.mark.parametrize("task", ["intent", "sentiment"])
def test_an_explanation_is_of_the_words_sent_and_sums_to_the_score(server: Server, task: str) -> None:
    texts = ["where is my order 88231?", f"😡 naïve {NEGATIVE}", POSITIVE]
    plain, explained = predict(server, task, texts=texts), predict(server, task, texts=texts, explain=True)
    for text, bare, prediction in zip(texts, plain, explained, strict=True):
        explanation = prediction.pop("explanation")
        assert prediction == bare
        assert explanation["label"] == bare["label"]
        assert 1 / (1 + math.exp(-explanation["total"])) == pytest.approx(bare["score"], abs=2e-5)
        contributions = [word["contribution"] for word in explanation["words"]]
        assert sum(contributions) + explanation["rest"] == pytest.approx(explanation["total"], abs=1e-9)
        assert "".join(text[word["start"] : word["end"]] for word in explanation["words"]) == text.replace(" ", "")
        assert max(contributions) > 0


@every_task
def test_long_text_is_truncated_and_says_so(server: Server, task: str) -> None:
    short, long = "where is my parcel", "where is my parcel " * 500
    if task == "recommendation":
        candidates = [{"id": "short", "text": short}, {"id": "long", "text": long}]
        cut = {p["id"]: p.get("truncated") for p in predict(server, task, candidates=candidates)}
        assert cut == {"short": None, "long": True}
    else:
        predictions = predict(server, task, texts=[short, long])
        assert [prediction.get("truncated") for prediction in predictions] == [None, True]


@every_task
def test_infer(server: Server, task: str) -> None:
    version = loaded_version(server, task)
    name = all_tasks()[task].inputs[0].name
    tensor = {"name": name, "shape": [2], "datatype": "BYTES", "data": ["where is my order", "a tent"]}
    for path in (f"/v2/models/{task}/infer", f"/v2/models/{task}/versions/{version}/infer"):
        body = server.post(path, json={"id": "mine", "inputs": [tensor]}).json()
        assert (body["id"], body["model_name"], body["model_version"]) == ("mine", task, version)
        for output, expected in zip(body["outputs"], all_tasks()[task].outputs, strict=True):
            assert (output["name"], output["datatype"]) == (expected.name, expected.datatype)
            assert output["shape"] == [len(output["data"])] == [2]


@every_task
def test_pinned_version(server: Server, task: str) -> None:
    version = loaded_version(server, task)
    response = server.post(f"/v2/models/{task}/versions/{version}/predict", json=EXAMPLES[task])
    assert response.status_code == 200
    assert response.json()["model_version"] == version


@pytest.mark.parametrize("rest", ["", "/ready", "/predict", "/infer"])
@pytest.mark.parametrize("model", ["intent/versions/999", "intentx", "nosuch", "nosuch/versions/1"])
def test_unknown_model_or_version(server: Server, model: str, rest: str) -> None:
    path = f"/v2/models/{model}{rest}"
    if rest in ("/predict", "/infer"):
        error = assert_error(server.post(path, json=EXAMPLES["intent"]), 404)
    else:
        error = assert_error(server.get(path), 404)
    assert error["code"] == "not_found"
    assert ("999" if "999" in model else model.partition("/")[0]) in error["error"]


@pytest.mark.parametrize("path", ["/nothing", "/v2/models", "/v2/models/intent/", "/docs/secret", "/docs/..%2fx"])
def test_unknown_path(server: Server, path: str) -> None:
    assert_error(server.get(path), 404)


@pytest.mark.parametrize("endpoint", ["predict", "infer"])
@every_task
def test_get_where_post_is_due(server: Server, task: str, endpoint: str) -> None:
    response = server.get(f"/v2/models/{task}/{endpoint}")
    assert_error(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/v2", "/v2/health/ready", "/metrics", "/v2/models/intent"])
def test_post_where_get_is_due(server: Server, path: str) -> None:
    response = server.post(path, json={})
    assert_error(response, 405)
    assert "GET" in response.headers["allow"]


@every_task
def test_metrics_count_a_predict(server: Server, task: str) -> None:
    labels = {"task": task, "version": loaded_version(server, task)}
    answered = {**labels, "endpoint": "predict", "code": "200"}
    known = {**labels, "result": "hit"}
    new: Any = {"text": f"never asked before {uuid4().hex}"}
    if task == "recommendation":
        new = {"candidates": [{"id": "new", **new}]}
    before = server.get("/metrics").text
    predict(server, task, **new)
    after = server.get("/metrics").text
    for name, wanted in (
        ("flywheel_requests_total", answered),
        ("flywheel_request_latency_seconds_count", {**labels, "endpoint": "predict"}),
        ("flywheel_batch_size_count", labels),
    ):
        assert _value(after, name, wanted) >= _value(before, name, wanted) + 1, name
    assert _value(after, "flywheel_requests_total", answered) == _value(before, "flywheel_requests_total", answered) + 1
    for _ in range(10):  # each replica remembers for itself
        predict(server, task, **new)
    assert _value(server.get("/metrics").text, "flywheel_cache_texts_total", known) > _value(
        before, "flywheel_cache_texts_total", known
    )


def _value(exposition: str, name: str, labels: dict[str, str]) -> float:
    samples = [sample for family in text_string_to_metric_families(exposition) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def test_openapi_is_valid_and_its_examples_work(server: Server) -> None:
    description = server.get("/openapi.json").json()
    assert description["openapi"].startswith("3.1.")
    validate(description)
    for task in TASKS:
        for endpoint in ("predict", "infer"):
            path = f"/v2/models/{task}/{endpoint}"
            body = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            assert server.post(path, json=body["example"]).status_code == 200, path


def test_docs_page_loads_without_a_network(server: Server) -> None:
    page = server.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http" not in page.text.replace("http-equiv", "")
    assets = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(assets) == 2
    for asset, kind in zip(assets, ("text/css", "text/javascript"), strict=True):
        response = server.get(asset)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        assert len(response.content) > 10_000
