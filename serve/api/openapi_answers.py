"""OpenAPI schemas of what intent adds to a label for a desk that answers: entities, the answer, what it lacks."""

from __future__ import annotations

from typing import Any

ANSWER_FIELDS: dict[str, dict[str, Any]] = {
    "entities": {
        "type": "array",
        "description": "what was found in the text, in order; left out if nothing was",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["type", "value", "start", "end"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "order_id, invoice_id, email, phone, amount, date, time, product, or one of the "
                    "deployment's own",
                    "examples": ["order_id"],
                },
                "value": {
                    "type": "string",
                    "description": "in its normal form: `EUR 12.50`, `2026-05-03`, `--05-03` without a year, `14:30`; "
                    "the name of a product as the list has it. Text of a customer: escape it where you show it",
                    "examples": ["88231"],
                },
                "start": {"type": "integer", "minimum": 0, "description": "in characters (code points)"},
                "end": {"type": "integer", "minimum": 1, "description": "exclusive"},
            },
        },
    },
    "answer": {
        "type": "string",
        "description": "the intent's answer with its slots filled, if it has one and no person should answer. Plain "
        "text with parts of the request in it: escape it where you show it",
    },
    "missing": {
        "type": "array",
        "description": "slots that nothing fills; they are `{slot}` in the answer. Left out if there are none",
        "minItems": 1,
        "items": {"type": "string"},
        "examples": [["orders_url"]],
    },
}
