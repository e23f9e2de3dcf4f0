"""The OpenAPI description of opinion monitoring."""

from __future__ import annotations

from typing import Any

from models.opinion.trends import MAX_POINTS
from serve.api.opinion import BASE

_COUNT = {"type": "integer", "minimum": 0}
_COUNTS = {
    "texts": _COUNT,
    "stories": {**_COUNT, "description": "near copies of a text count once, when the first of them appeared"},
    "positive": {**_COUNT, "description": "of the texts"},
    "neutral": {**_COUNT, "description": "of the texts"},
    "negative": {**_COUNT, "description": "of the texts"},
    "net": {
        "type": "number",
        "minimum": -1,
        "maximum": 1,
        "description": "(positive - negative) / all, of stories",
    },
}
_SUMMED = {"type": "object", "required": list(_COUNTS), "properties": _COUNTS}
_TIME = {"type": "string", "format": "date-time"}
_DAY_AND_WEEK = {"day": _SUMMED, "week": _SUMMED}
_TOPICS = {
    "type": "object",
    "required": ["topics", "all"],
    "properties": {
        "topics": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["topic", "day", "week"],
                "properties": {"topic": {"type": "string"}, **_DAY_AND_WEEK},
            },
        },
        "all": {"type": "object", "required": ["day", "week"], "properties": _DAY_AND_WEEK},
    },
}
_TRENDS = {
    "type": "object",
    "required": ["topic", "step_s", "points"],
    "properties": {
        "topic": {"type": ["string", "null"], "description": "null: all documents"},
        "step_s": {
            "type": "integer",
            "description": "without changes of the clock; a month has 30 days",
        },
        "points": {
            "type": "array",
            "maxItems": MAX_POINTS,
            "description": "in the order of time, without gaps",
            "items": {
                "type": "object",
                "required": ["time", *_COUNTS],
                "properties": {"time": {**_TIME, "description": "its beginning, in `tz`"}, **_COUNTS},
            },
        },
    },
}
_ALERTS = {
    "type": "object",
    "required": ["alerts"],
    "properties": {
        "alerts": {
            "type": "array",
            "description": "newest first, at most 1,000",
            "items": {
                "type": "object",
                "required": ["topic", "kind", "started", "ended", "observed", "expected", "score", "examples"],
                "properties": {
                    "topic": {"type": "string"},
                    "kind": {"enum": ["negative_surge"]},
                    "started": _TIME,
                    "ended": {"type": ["string", "null"], "format": "date-time", "description": "null: it lasts"},
                    "observed": {"type": "number", "description": "negative stories in all its steps"},
                    "expected": {"type": "number", "description": "how many are usual in these steps"},
                    "score": {
                        "type": "number",
                        "description": "-log10 of the probability of so many by chance, in its most unusual step",
                    },
                    "examples": {"type": "array", "items": {"type": "string"}, "description": "ids of documents"},
                },
            },
        }
    },
}


def opinion_paths() -> dict[str, Any]:
    """The paths of topics, trends and alerts."""
    return {
        f"{BASE}/topics": _get("All topics with their counts of the last day and week", _TOPICS, ()),
        f"{BASE}/trends": _get(
            "Counts of a topic by time; gaps are zeros. The points are whole: the first one contains `start`",
            _TRENDS,
            [
                _query("topic", "all documents, if it is left out"),
                _query("start", "RFC 3339 with a zone; default: 7 days before `end`", _TIME),
                _query("end", "RFC 3339 with a zone; default: now", _TIME),
                _query("step", "1m to 1mo: 15m, 1h, 1d, 1w, or ISO 8601: PT15M, P1D, P1M; default: 1h"),
                _query("tz", "an IANA time zone, in which days, weeks and months begin; default: UTC"),
            ],
        ),
        f"{BASE}/alerts": _get(
            "Alerts",
            _ALERTS,
            [
                _query("topic", "of this topic only"),
                _query("since", "without those that ended before this time", _TIME),
                _query("active", "those that last, or those that have ended", {"type": "boolean"}),
            ],
        ),
    }


def _query(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema or {"type": "string"}}


def _get(summary: str, schema: dict[str, Any], parameters: Any) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    errors = {
        "404": "There is no such topic; `topics` has those that there are.",
        "422": "A parameter is wrong; `fields` says which and why.",
        "503": "The store cannot be reached; see `Retry-After`.",
    }
    return {
        "get": {
            "tags": ["opinion"],
            "summary": summary,
            "parameters": list(parameters),
            "responses": {
                "200": {"description": "OK", "content": {"application/json": {"schema": schema}}},
                **{code: {"description": text, "content": error} for code, text in errors.items()},
            },
        }
    }
