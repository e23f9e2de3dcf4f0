"""The HTTP contract in code: tasks, example requests, and what an error looks like."""

from __future__ import annotations

import re
from typing import Any

import httpx

from models.tasks.base import all_tasks

TASKS = ("intent", "sentiment", "recommendation")
EXAMPLES: dict[str, dict[str, Any]] = {name: task.example for name, task in all_tasks().items()}
NEGATIVE = "Shares crash as the company files for bankruptcy"
POSITIVE = "Profit soars to a record and the dividend doubles"


def assert_error(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error contract; returns the body."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert isinstance(body["error"], str)
    assert body["error"]
    assert re.fullmatch("[a-z_]+", body["code"])
    assert "Traceback" not in response.text
    return body
