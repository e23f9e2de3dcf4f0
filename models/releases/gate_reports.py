"""Gate reports of released versions: one JSON file a version, beside the releases.

MLflow has the same report as a page. The server answers from this copy, so that it does not need MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson


def write_gate_report(home: Path, task: str, version: str, report: bytes) -> None:
    """`report` is the JSON that `models.evaluation.report` wrote. Raises OSError."""
    path = _path(home, task, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(report)


def read_gate_report(home: Path, task: str, version: str) -> dict[str, Any] | None:
    """The report of a version; None when no retraining of this home released it, or the file is unreadable."""
    if not version.isdecimal():
        return None
    try:
        report: dict[str, Any] = orjson.loads(_path(home, task, version).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return report


def _path(home: Path, task: str, version: str) -> Path:
    return home / "gates" / task / f"{version}.json"
