"""JSON parsing and validation for every endpoint, with errors that name the field."""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from serve.errors import InvalidRequest, NotJson

Model = TypeVar("Model", bound=BaseModel)
_MAX_FIELDS = 20  # listed in an error; a body can have thousands of wrong fields


def parse_json(body: bytes) -> Any:
    """The parsed body. Raises NotJson with the position of the error."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotJson(f"the body is not JSON: {error}") from None


def validate(model: type[Model], value: Any) -> Model:
    """`value` as an instance of `model`. Raises InvalidRequest with an entry per wrong field: its path and a reason."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fields = [
            {"field": ".".join(map(str, item["loc"])) or "body", "reason": _reason(item)}
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_FIELDS]
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
