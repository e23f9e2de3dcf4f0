"""Bytes to validated requests and back: JSON with errors that name the field, for every endpoint."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from serve.errors import InvalidRequest, NotJson

Model = TypeVar("Model", bound=BaseModel)
_MOST_FIELDS = 20  # a body can be wrong in a thousand places; nobody reads more than a few


def parse_json(body: bytes) -> Any:
    """Raises NotJson, with the place where parsing stopped."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotJson(f"the body is not JSON: {error}") from None


def validate(model: type[Model], value: Any) -> Model:
    """Raises InvalidRequest with one entry a wrong field: where it is, and why it is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fields = [
            {"field": ".".join(map(str, item["loc"])) or "body", "reason": _reason(item)}
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_FIELDS]
        ]
        first = fields[0]
        raise InvalidRequest(f"{first['field']}: {first['reason']}", fields=fields) from None


def _reason(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "there is no such field"
    if item["type"] == "model_type":
        return "a JSON object is expected"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def to_json(value: Any) -> bytes:
    return orjson.dumps(value)
