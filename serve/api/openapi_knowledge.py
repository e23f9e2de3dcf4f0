"""The OpenAPI description of the knowledge base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.knowledge.types import MAX_ID
from serve.api.knowledge import BASE, MAX_PAGE

_STORED = {
    "type": "object",
    "required": ["id", "question", "answer", "language", "tags", "updated"],
    "properties": {
        "id": {"type": "string"},
        "question": {"type": "string"},
        "answer": {"type": "string", "description": "plain text, as it was given: escape it where you show it"},
        "language": {"type": ["string", "null"], "description": "BCP 47"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "updated": {"type": "string", "format": "date-time"},
    },
}
_COUNT = {"type": "integer", "minimum": 0}
_PAGE = {
    "type": "object",
    "required": ["entries", "next", "total", "waiting", "revision", "min_similarity", "max_entries"],
    "properties": {
        "entries": {"type": "array", "description": "in the order of their ids", "items": _STORED},
        "next": {
            "type": ["string", "null"],
            "description": "give it as `after` for the next page; null: there is none",
        },
        "total": _COUNT,
        "waiting": {**_COUNT, "description": "entries that are not found yet, since their vector is being computed"},
        "min_similarity": {"type": "number", "description": "of an entry that is offered (knowledge.min_similarity)"},
        "max_entries": {**_COUNT, "description": "more are refused (knowledge.max_entries)"},
        "revision": {**_COUNT, "description": "the number of changes so far; replicas report theirs in their metadata"},
    },
}
_WRITTEN = {
    "type": "object",
    "required": ["added", "changed", "unchanged", "revision", "ids"],
    "properties": {
        **dict.fromkeys(("added", "changed", "unchanged", "revision"), _COUNT),
        "ids": {
            "type": "array",
            "description": "of the entries, in the order of the request",
            "items": {"type": "string"},
        },
    },
}
_DELETED = {"type": "object", "required": ["deleted"], "properties": {"deleted": _COUNT}}
_MATCH = {
    "type": "object",
    "required": ["id", "question", "answer", "similarity"],
    "properties": {
        "id": {"type": "string"},
        "question": {"type": "string"},
        "answer": {"type": "string"},
        "similarity": {"type": "number", "minimum": 0, "maximum": 1},
    },
}
_MATCHES = {
    "type": "object",
    "required": ["matches"],
    "properties": {
        "matches": {
            "type": "array",
            "description": "the nearest first; empty when nothing is near enough",
            "items": _MATCH,
        }
    },
}
_ENTRY_EXAMPLE = {
    "id": "returns-1",
    "question": "How do I return an item?",
    "answer": "Send it back within 30 days. The label is in your account.",
    "language": "en",
    "tags": ["returns"],
}
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_ID},
    "description": "letters, digits and `-_.:@+`",
}
_CHANGE_ERRORS = ("400", "403", "408", "413", "415", "422", "503")


def knowledge_paths(references: Mapping[str, Any], errors: Mapping[str, str]) -> dict[str, Any]:
    """The paths of the knowledge base.

    `references` are the schemas of Entry, Entries, Deletion and Search by name; `errors` the meanings of statuses.
    """

    def operation(
        summary: str, schema: dict[str, Any], statuses: tuple[str, ...], body: str = "", example: Any = None
    ) -> dict[str, Any]:
        error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        found: dict[str, Any] = {
            "tags": ["knowledge"],
            "summary": summary,
            "responses": {
                "200": {"description": "OK", "content": {"application/json": {"schema": schema}}},
                **{status: {"description": errors[status], "content": error} for status in statuses},
            },
        }
        if body:
            content = {"schema": references[body], "example": example}
            found["requestBody"] = {"required": True, "content": {"application/json": content}}
        return found

    listing = operation("Entries, and how many there are", _PAGE, ("403", "422", "503"))
    listing["parameters"] = [
        {"name": "after", "in": "query", "schema": {"type": "string"}, "description": "`next` of the page before"},
        {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100},
        },
    ]
    one = {
        "get": operation("An entry", _STORED, ("403", "404", "503")),
        "put": operation(
            "Add an entry or replace it", _WRITTEN, (*_CHANGE_ERRORS, "409"), "Entry",
            {key: value for key, value in _ENTRY_EXAMPLE.items() if key != "id"},
        ),
        "delete": operation("Delete an entry, with its bytes", _DELETED, ("403", "404", "415", "503")),
    }  # fmt: skip
    return {
        BASE: {
            "get": listing,
            "put": operation(
                "Add entries, or replace those with their ids: all of the request or none", _WRITTEN,
                (*_CHANGE_ERRORS, "409"), "Entries", {"entries": [_ENTRY_EXAMPLE]},
            ),
            "delete": operation(
                "Delete entries, with their bytes", _DELETED, _CHANGE_ERRORS, "Deletion", {"ids": ["returns-1"]}
            ),
        },
        f"{BASE}/{{id}}": {**one, "parameters": [_ID]},
        f"{BASE}/search": {
            "post": operation(
                "The entries nearest to a text", _MATCHES, ("400", "408", "413", "415", "422", "503"), "Search",
                {"text": "can I send back a gift?", "limit": 3},
            )
        },
    }  # fmt: skip
