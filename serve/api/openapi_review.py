"""The OpenAPI description of what to label next, and of discovery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.discovery.review import MAX_SUGGESTIONS
from serve.api import discovery, review

_COUNT = {"type": "integer", "minimum": 0}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_STRING = {"type": "string"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(description: str, items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "description": description, "items": items, **more}


_HEAD = {
    "task": _STRING,
    "champion": {"type": ["string", "null"], "description": "the version that serves; null: none yet"},
    "texts": {**_COUNT, "description": "different texts of the log's newest part that nobody has labelled"},
    "computed": {"type": "string", "format": "date-time"},
}
_EXAMPLE = {
    "id": {"type": "string", "description": "of the prediction, for feedback"},
    "index": {**_COUNT, "description": "of the text, for feedback"},
    "text": {"type": "string", "description": "as logged: personal data is replaced"},
    "prediction": {
        "type": "object",
        "description": "the newest one for this text, by `version`",
        "required": ["label", "score", "version"],
        "properties": {"label": _STRING, "score": _SHARE, "version": _STRING},
    },
}
_WHY = _object(
    sentence=_STRING,
    uncertainty={**_SHARE, "description": "1 less the margin between the two best labels"},
    times={**_COUNT, "description": "how often it was asked"},
    similar={**_COUNT, "description": "uncertain requests with other texts that are like it"},
    new={"type": "boolean", "description": "first asked after the champion was trained"},
)
_REVIEW = _object(
    **_HEAD,
    review=_list("the most useful first", _object(**_EXAMPLE, why=_WHY), maxItems=MAX_SUGGESTIONS),
)
_PROPOSAL = _object(
    name={"type": "string", "description": "made of the words that set its texts apart"},
    requests=_COUNT,
    texts={**_COUNT, "description": "different ones"},
    cohesion={"type": "number", "maximum": 1, "description": "mean cosine of its texts to their mean"},
    taken_for={
        "type": "object",
        "description": "share of its texts by predicted label",
        "additionalProperties": _SHARE,
    },
    examples=_list("the most typical first", _object(**_EXAMPLE)),
)
_OVERLAP = _object(
    labels=_list("two", _STRING, minItems=2, maxItems=2),
    corrections=_object(
        changed={**_COUNT, "description": "corrections that change one into the other"},
        of={**_COUNT, "description": "labels from people that are one of the two"},
    ),
    holdout=_object(
        wrong={
            "type": ["number", "null"],
            "description": "mean probability that the champion gives to one on held-out texts of the other",
        },
        texts=_COUNT,
    ),
    sentence=_STRING,
)
_DISCOVERY = _object(
    **_HEAD,
    unsure={**_COUNT, "description": "of the texts, those that were handed off, or had a low score"},
    proposals=_list("labels that may be missing, the most requests first", _PROPOSAL),
    overlaps=_list("pairs of labels, the worst first", _OVERLAP),
)


def review_paths(classifiers: Sequence[str]) -> dict[str, Any]:
    """The paths of both endpoints, for these tasks."""
    limit = {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_SUGGESTIONS, "default": review.DEFAULT_LIMIT},
    }
    paths = {}
    for task in classifiers:
        paths[f"{review.BASE}/{task}"] = _get(task, "What to label next, most useful first", _REVIEW, [limit])
        paths[f"{discovery.BASE}/{task}"] = _get(task, "Labels that may be missing, and that overlap", _DISCOVERY, [])
    return paths


def _get(task: str, summary: str, schema: dict[str, Any], parameters: Sequence[Any]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    errors = {
        "403": "This is for operators.",
        "422": "A parameter is wrong.",
        "503": "It is being computed, or the store cannot be reached; see `Retry-After`.",
    }
    return {
        "get": {
            "tags": [f"{task}, operators"],
            "summary": summary,
            "parameters": list(parameters),
            "responses": {
                "200": {"description": "OK", "content": {"application/json": {"schema": schema}}},
                **{code: {"description": text, "content": error} for code, text in errors.items()},
            },
        }
    }
