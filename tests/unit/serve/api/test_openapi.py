"""OpenAPI describes every endpoint that operators have: its lists are kept by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from models.feedback.store import Store
from serve.api.knowledge import KnowledgeApi
from serve.api.openapi import openapi
from serve.api.operations import Operations
from serve.api.repository import Repository
from serve.config import Config


class NoApplications:
    def states(self) -> dict[str, str]:
        return {}

    def load(self, task: str) -> None: ...

    def unload(self, task: str) -> None: ...


@pytest.mark.parametrize("task", ["intent", "recommendation"])
def test_every_route_of_the_repository_is_described(tmp_path: Path, task: str) -> None:
    config = Config()
    operations = Operations(config, Store(f"sqlite:///{tmp_path / 'feedback.db'}"))
    routes = [*operations.routes(), *Repository(config, operations, NoApplications()).routes()]
    served = {
        (route.path.replace("{task}", task), method.lower())
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
    }
    paths = openapi([task], "0")["paths"]
    described = {
        (path, method)
        for path, methods in paths.items()
        if path.startswith("/v2/repository")
        for method in set(methods) - {"parameters"}
    }
    assert len(served) > 10
    assert described == served


def test_every_route_of_the_knowledge_base_is_described(tmp_path: Path) -> None:
    routes = KnowledgeApi(Config(), Store(f"sqlite:///{tmp_path / 'feedback.db'}")).routes()
    served = {(route.path, method.lower()) for route in routes for method in (route.methods or set()) - {"HEAD"}}
    described = openapi(["intent"], "0")
    paths = {path: methods for path, methods in described["paths"].items() if path.startswith("/v2/knowledge")}
    assert {(path, method) for path, methods in paths.items() for method in set(methods) - {"parameters"}} == served
    OpenAPIV31SpecValidator(described).validate()


def test_details_of_a_prediction_are_described() -> None:
    schemas = openapi(["intent", "sentiment", "recommendation"], "0")["components"]["schemas"]
    for name in ("IntentRequest", "SentimentRequest"):
        details = schemas[name]["properties"]["details"]
        assert (details["type"], details["default"], details["examples"]) == ("boolean", False, [True])
        assert "`stages`" in details["description"]
    assert "details" not in schemas["RankRequest"]["properties"]


def test_topics_and_times_are_described() -> None:
    described = openapi(["sentiment", "intent"], "0")
    request = described["components"]["schemas"]["SentimentDocument"]["properties"]
    for name in ("topic", "published", "document_id"):
        assert request[name]["description"]
    assert {"type": "string", "format": "date-time"} in request["published"]["anyOf"]
    of_intent = {"handoff", "reason", "top_k", "intents", "entities", "answer", "missing", "nearest", "truncated"}
    for task, fields in (("sentiment", {"scores", "topics"}), ("intent", of_intent)):
        answer = described["paths"][f"/v2/models/{task}/predict"]["post"]["responses"]["200"]
        prediction = answer["content"]["application/json"]["schema"]["properties"]["predictions"]["items"]
        assert set(prediction["properties"]) - {"label", "score", "confidence", "explanation"} == fields


def test_the_answer_to_a_ranking_is_described() -> None:
    described = openapi(["recommendation"], "0")
    request = described["components"]["schemas"]["RankRequest"]["properties"]
    for name, kind in (("diversity", "number"), ("explore", "number"), ("explain", "boolean")):
        assert request[name]["type"] == kind
        assert request[name]["description"]
    assert (request["explore"]["minimum"], request["explore"]["maximum"]) == (0, 1)
    answer = described["paths"]["/v2/models/recommendation/predict"]["post"]["responses"]["200"]
    prediction = answer["content"]["application/json"]["schema"]["properties"]["predictions"]["items"]
    assert set(prediction["properties"]) == {"id", "score", "propensity", "reasons", "truncated"}
    assert prediction["required"] == ["id", "score"]
    assert prediction["properties"]["reasons"]["items"]["$ref"].rpartition("/")[2] in described["components"]["schemas"]
