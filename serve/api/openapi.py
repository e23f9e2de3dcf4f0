"""The OpenAPI 3.1 description of the server, built from the same models that validate its requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from models.knowledge.types import Entry
from models.tasks.base import ClassifierTask, Task, get_task
from models.tasks.intent import Intent, Reason
from models.tasks.recommendation import Recommendation
from models.tasks.sentiment import Sentiment
from serve.api.knowledge import Deletion, Entries, Search
from serve.api.oip import InferRequest
from serve.api.openapi_answers import ANSWER_FIELDS
from serve.api.openapi_knowledge import knowledge_paths
from serve.api.openapi_opinion import opinion_paths
from serve.api.openapi_review import review_paths
from serve.api.operations import BASE, Challenge, ErasureRequest, Move, Promotion, Rollback
from serve.api.repository import Index, Load, Unload
from serve.feedback.intake import Feedback, FeedbackBatch

_ERRORS = {
    "400": "The body is not JSON.",
    "403": "This is for operators, or `Host` or `Origin` is not the server's own.",
    "404": "There is no such model, version or prediction.",
    "408": "The request had not arrived within the server's deadline.",
    "409": "Not possible in the current state.",
    "410": "The prediction was deleted when its retention period ended.",
    "413": "The body is larger than the limit.",
    "415": "The body is not declared as JSON.",
    "422": "The JSON does not match the schema; `fields` says where and why.",
    "503": "Overloaded or not ready; see `Retry-After`.",
    "504": "The deadline passed.",
}


def openapi(tasks: Sequence[str], version: str, *, opinion: bool = False) -> dict[str, Any]:
    """The description of a server that serves `tasks`, and monitors `opinion`."""
    classes = [get_task(name) for name in tasks]
    feedback_models: list[type[BaseModel]] = [
        Feedback,
        FeedbackBatch,
        Index,
        *(model for model, _ in _CHANGES.values()),
        *_KNOWLEDGE,
    ]
    models: list[type[BaseModel]] = [InferRequest, *feedback_models, *dict.fromkeys(task.Request for task in classes)]
    references, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {
        "/v2/health/live": {"get": _read("Is the server alive?")},
        "/v2/health/ready": {"get": _read("Are all models ready?", ["503"])},
        "/v2": {"get": _read("Server metadata")},
        "/v2/repository/index": {
            "post": _write("List the versions and their states", references[(Index, "validation")], {})
        },
        "/metrics": {"get": _read("Prometheus metrics of all replicas", content="text/plain")},
    }
    for task in classes:
        schema = references[(task.Request, "validation")]
        infer = references[(InferRequest, "validation")]
        base = f"/v2/models/{task.name}"
        for path, parameters in ((base, []), (base + "/versions/{version}", [_VERSION])):
            common = {"tags": [task.name], "parameters": parameters}
            paths[path] = {"get": {**_read("Model metadata", ["404"]), **common}}
            paths[f"{path}/ready"] = {"get": {**_read("Is this model ready?", ["404", "503"]), **common}}
            common = {**common, "parameters": [*parameters, _USER]}
            paths[f"{path}/predict"] = {"post": {**_write(task.summary, schema, task.example), **common}}
            content = paths[f"{path}/predict"]["post"]["responses"]["200"]["content"]["application/json"]
            if issubclass(task, Intent):
                content["schema"] = _INTENT
            elif issubclass(task, Sentiment):
                content["schema"] = _OPINION
            elif issubclass(task, ClassifierTask):
                content["schema"] = _CLASSIFIED
            elif issubclass(task, Recommendation):
                content["schema"] = _RANKED
            paths[f"{path}/infer"] = {
                "post": {**_write("Open Inference Protocol inference", infer, _infer_example(task)), **common}
            }
            answered = paths[f"{path}/infer"]["post"]["responses"]["200"]
            answered["content"]["application/json"]["schema"] = _INFERRED
        correction = {"anyOf": [references[(model, "validation")] for model in (Feedback, FeedbackBatch)]}
        post = _write(
            "Correct predictions; 202 once the corrections are durable", correction, _correction(task), ok="202"
        )
        post["responses"]["202"] = _FEEDBACK_STORED
        post["responses"]["422"] = _FEEDBACK_REFUSED
        paths[f"{base}/feedback"] = {
            "get": {**_read("Corrections by state", ["503"]), "tags": [task.name]},
            "post": {**post, "tags": [task.name], "parameters": [_USER]},
        }
        for name, (model, summary) in _CHANGES.items():
            example = _EXAMPLES.get(name, {"reason": "why"})
            change = _write(summary, references[(model, "validation")], example, ok=_STATUS.get(name, "200"))
            paths[f"{BASE}/{task.name}/{name}"] = {"post": {**change, "tags": [f"{task.name}, operators"]}}
        for name, summary in _READS.items():
            read = {**_read(summary, ["403", "404", "503"]), "tags": [f"{task.name}, operators"]}
            if name.endswith("}"):
                read["parameters"] = [_VERSION]
            paths.setdefault(f"{BASE}/{task.name}/{name}", {})["get"] = read
    paths |= review_paths([task.name for task in classes if issubclass(task, ClassifierTask)])
    if opinion:
        paths |= opinion_paths()
    paths |= knowledge_paths({model.__name__: references[(model, "validation")] for model in _KNOWLEDGE}, _ERRORS)
    schemas = {
        **definitions.get("$defs", {}),
        "Error": _ERROR,
        "FeedbackResult": _FEEDBACK_RESULT,
        "Explanation": _EXPLANATION,
        "Reason": _REASON,
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flywheel",
            "version": version,
            "description": "Fine-tuned text classifiers, served under the Open Inference Protocol (v2).",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


_KNOWLEDGE: tuple[type[BaseModel], ...] = (Entry, Entries, Deletion, Search)
_CHANGES: dict[str, tuple[type[BaseModel], str]] = {
    "load": (Load, "Start the task's replicas, if they were unloaded"),
    "unload": (Unload, "Stop the task's replicas, once they have answered the requests they accepted"),
    "promote": (Promotion, "Make a version, or the challenger, the champion"),
    "challenge": (Challenge, "Start a version as challenger, in shadow or as a canary"),
    "rollback": (Rollback, "Withdraw the challenger, or return to the previous champion"),
    "retrain": (Move, "Retrain with the waiting corrections now"),
    "erase": (ErasureRequest, "Delete all data of a user, in all tasks"),
}
_STATUS = {"retrain": "202"}
_READS = {
    "retrain": "Progress of a retraining or the outcome of the last one, and the latest requests",
    "audit": "Moves and retrainings, newest first",
    "versions": "The local versions, newest first",
    "gate/{version}": "The gate's measurements of a version before its release",
}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "load": {},
    "unload": {},
    "challenge": {"version": "2", "mode": "canary", "share": 0.1, "reason": "why"},
    "erase": {"user": "customer-7", "reason": "asked by mail"},
}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
_USER = {
    "name": "x-user-id",
    "in": "header",
    "schema": {"type": "string"},
    "description": "who asks, in UTF-8 or percent-encoded: gets one version of a canary, and is stored as a keyed hash",
}


def _answer(order: str, required: Sequence[str], **fields: dict[str, Any]) -> dict[str, Any]:
    """The schema of an answer to predict. `fields` are those of a prediction, `order` that of the predictions."""
    prediction = {"type": "object", "required": list(required), "properties": fields}
    return {
        "type": "object",
        "required": ["id", "model_name", "model_version", "predictions"],
        "properties": {
            "id": {"type": "string", "description": "for feedback"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "predictions": {"type": "array", "description": order, "items": prediction},
        },
    }


_LABEL: dict[str, dict[str, Any]] = {
    "label": {"type": "string"},
    "score": {"type": "number", "description": "the label's probability, 0 to 1"},
    "confidence": {
        "enum": ["high", "medium", "low"],
        "description": "how often labels with such scores are right: the model's metadata has the bounds",
    },
    "explanation": {"$ref": "#/components/schemas/Explanation"},
}
_CLASSIFIED = _answer("one per text, in order", ("label", "score"), **_LABEL)
_LABEL_AND_SCORE = {"label": {"type": "string"}, "score": {"type": "number"}}
_SPAN = {
    "start": {"type": "integer", "description": "the clause's first character in the text, in code points"},
    "end": {"type": "integer", "description": "the character after its last"},
}
_INTENT = _answer(
    "one per text, in order",
    ("label", "score", "confidence", "handoff", "top_k"),
    **_LABEL,
    handoff={"type": "boolean", "description": "whether a person should answer"},
    reason={
        "enum": list(get_args(Reason)),
        "description": "why, if one should: it matches no intent; the score is low; the customer asks for a person; "
        "there is no answer to the intent",
    },
    top_k={
        "type": "array",
        "description": "labels, the most probable first",
        "items": {"type": "object", "required": ["label", "score"], "properties": _LABEL_AND_SCORE},
    },
    intents={
        "type": "array",
        "description": "where the text has several wishes: a label for each, with its clause, in the order of the text",
        "minItems": 2,
        "items": {
            "type": "object",
            "required": ["label", "score", "start", "end"],
            "properties": {**_LABEL_AND_SCORE, **_SPAN},
        },
    },
    **ANSWER_FIELDS,
    nearest={
        "type": "object",
        "description": "the nearest question: an entry of the knowledge base, with its answer, where it was asked and "
        "has one that is near enough; without a knowledge base, with `low_confidence`, a known question of the "
        "training texts",
        "required": ["question", "similarity"],
        "properties": {
            "question": {"type": "string"},
            "answer": {"type": "string", "description": "plain text, as it was given: escape it where you show it"},
            "similarity": {"type": "number", "maximum": 1},
            "id": {"type": "string", "description": "of the entry"},
        },
    },
    truncated={"type": "boolean", "description": "true if the text was longer than the model reads"},
)
_OPINION = _answer(
    "one per text, in order",
    ("label", "score", "scores", "topics"),
    **_LABEL,
    scores={
        "type": "object",
        "description": "the probability of each label",
        "additionalProperties": {"type": "number"},
    },
    topics={
        "type": "array",
        "description": "the topic that the request gave, or those found in the text; `other` if there are none",
        "items": {"type": "string"},
        "minItems": 1,
        "examples": [["airlines", "oil"]],
    },
)
_RANKED = _answer(
    "the items in the order in which they are to be shown, first at the top; without `diversity` and `explore`, by "
    "their scores",
    ("id", "score"),
    id={"type": "string", "description": "the candidate's"},
    score={"type": "number", "description": "the probability that the user chooses it, 0 to 1"},
    propensity={
        "type": "number",
        "description": "with `explore`: the probability, above 0 to 1, with which it was drawn at its place, given the "
        "items above it",
    },
    reasons={
        "type": "array",
        "description": "with `explain`: what makes up log(score / (1 - score)); their contributions sum to it. The "
        "greatest first, `base` last",
        "items": {"$ref": "#/components/schemas/Reason"},
    },
    truncated={"type": "boolean", "description": "true if its text was longer than the model reads"},
)
_REASON = {
    "type": "object",
    "required": ["source", "contribution"],
    "properties": {
        "source": {
            "enum": ["history", "feature", "item", "user", "base"],
            "description": "an item of the user's history; a feature by its `name`; what is known of the item, or of "
            "the user, besides; what every candidate has",
        },
        "index": {"type": "integer", "description": "of a history item: its place in `user.history`, from 0"},
        "id": {"type": "string", "description": "of a history item, if it has one"},
        "name": {"type": "string", "description": "of a feature"},
        "others": {"type": "integer", "description": "the contribution is the sum of so many that are not listed"},
        "contribution": {"type": "number", "description": "above 0: it raises the score; below: it lowers it"},
    },
    "example": {"source": "history", "index": 2, "id": "tent-1", "contribution": 0.75},
}
_EXPLANATION = {
    "type": "object",
    "description": "On request (`explain`): what each word adds to the log-odds of the label's probability.",
    "required": ["label", "words", "rest", "total"],
    "properties": {
        "label": {"type": "string"},
        "words": {
            "type": "array",
            "description": "in the order of the text; at most 48, for which neighbours in a longer text are taken "
            "together; what was truncated has none",
            "items": {
                "type": "object",
                "required": ["word", "start", "end", "contribution"],
                "properties": {
                    "word": {"type": "string"},
                    "start": {"type": "integer", "description": "its first character in the text, in code points"},
                    "end": {"type": "integer", "description": "the character after its last"},
                    "contribution": {"type": "number", "description": "above 0: for the label; below: against it"},
                },
            },
        },
        "rest": {"type": "number", "description": "what no word alone adds"},
        "total": {"type": "number", "description": "the sum of all: log(score / (1 - score))"},
    },
    "example": {
        "label": "track_order",
        "words": [
            {"word": "where", "start": 0, "end": 5, "contribution": 1.25},
            {"word": "is", "start": 6, "end": 8, "contribution": 0.5},
            {"word": "my", "start": 9, "end": 11, "contribution": -0.25},
            {"word": "order", "start": 12, "end": 17, "contribution": 2.0},
        ],
        "rest": -0.5,
        "total": 3.0,
    },
}
_INFERRED = {
    "type": "object",
    "required": ["model_name", "model_version", "id", "parameters", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string", "description": "the request's id, if it had one"},
        "parameters": {
            "type": "object",
            "properties": {
                "prediction_id": {"type": "string", "description": "the `id` that feedback refers to"},
                "truncated": {"type": "boolean", "description": "true if a text was longer than the model reads"},
                "truncated_elements": {"type": "string", "description": "the numbers of their predictions: `0,3`"},
            },
        },
        "outputs": {"type": "array", "items": {"type": "object"}},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
}
_STATUS_OF_FEEDBACK = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"enum": ["accepted", "duplicate", "replaced"]}},
}
_FEEDBACK_RESULT = {
    "description": "What became of one correction: a status, or the error that it alone would have been answered with.",
    "oneOf": [_STATUS_OF_FEEDBACK, {"$ref": "#/components/schemas/Error"}],
}
_RESULTS = {
    "type": "array",
    "description": "one per item of `feedback`, in order",
    "items": {"$ref": "#/components/schemas/FeedbackResult"},
}
_FEEDBACK_RESULTS = {
    "type": "object",
    "required": ["taken", "refused", "results"],
    "properties": {
        "taken": {"type": "integer", "description": "results with a status"},
        "refused": {"type": "integer", "description": "results with an error"},
        "results": _RESULTS,
    },
}
_FEEDBACK_STORED = {
    "description": "Stored: the correction, or those items of `feedback` whose result has a status; see `refused`.",
    "content": {"application/json": {"schema": {"oneOf": [_STATUS_OF_FEEDBACK, _FEEDBACK_RESULTS]}}},
}
_FEEDBACK_REFUSED = {
    "description": "The correction is invalid, or every item of `feedback` was refused; then with `results`.",
    "content": {
        "application/json": {
            "schema": {
                "allOf": [
                    {"$ref": "#/components/schemas/Error"},
                    {"properties": {"results": _RESULTS}},
                ]
            }
        }
    },
}


def _read(summary: str, errors: Sequence[str] = (), content: str = "application/json") -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": {content: {}}}, **_errors(errors)},
    }


def _write(summary: str, schema: dict[str, Any], example: dict[str, Any], ok: str = "200") -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    done = {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"summary": summary, "requestBody": body, "responses": {ok: done, **_errors(list(_ERRORS))}}


def _errors(codes: Sequence[str]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {code: {"description": _ERRORS[code], "content": content} for code in codes}


def _correction(task: type[Task]) -> dict[str, Any]:
    return {"id": "the id of a prediction", **task.correction_example, "source": "support-desk", "consent": True}


def _infer_example(task: type[Task]) -> dict[str, Any]:
    required = [tensor for tensor in task.inputs if not tensor.optional]
    tensors = [{"name": t.name, "shape": [1], "datatype": t.datatype, "data": ["a text"]} for t in required]
    return {"inputs": tensors}
