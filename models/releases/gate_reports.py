"""Gate reports of released versions: one JSON file a version, beside the releases.

MLflow has the same report as a page. The server answers from this copy, so that it does not need MLflow.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import orjson

from export.files import write_atomically
from models.home import gate_report_file

log = logging.getLogger("flywheel.retrain")


def write_gate_report(home: Path, task: str, version: str, report: bytes) -> None:
    """Keep `report`, the JSON that models.evaluation.report writes. Logs a warning when the disk does not take it."""
    try:
        write_atomically(gate_report_file(home, task, version), report)
    except OSError as error:  # the version was trained, judged and registered: it is released without this file
        log.warning("%s: the gate report of version %s is in MLflow alone: %s", task, version, error)


def read_gate_report(home: Path, task: str, version: str) -> dict[str, Any] | None:
    """The report of a version; None when no retraining of this home released it, or the file is unreadable."""
    if not version.isdecimal():
        return None
    try:
        report: dict[str, Any] = orjson.loads(gate_report_file(home, task, version).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return report
