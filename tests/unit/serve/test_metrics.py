"""What a process counts is in its file at once, for whoever collects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serve.metrics import DIRECTORY_VARIABLE
from tests.helpers.command import ROOT

_COUNTS = """
from serve.metrics import Metrics, collect
counted = Metrics("intent")
for version in range(200):  # more than the file begins with room for
    counted.request(str(version), "predict", 200, 0.5)
counted.request("0", "predict", 200, 0.002)
counted.waiting(7, 0.25)
for family in collect():
    for sample in family.samples:
        if sample.labels.get("version", "0") == "0":
            print(sample.name, sample.labels.get("le", ""), sample.value)
"""


def test_what_was_counted_is_collected_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COUNTS], env={DIRECTORY_VARIABLE: str(tmp_path)}, cwd=ROOT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = done.stdout.splitlines()
    for line in (
        "flywheel_requests_total  2.0",
        "flywheel_request_latency_seconds_bucket 0.001 0.0",
        "flywheel_request_latency_seconds_bucket 0.0025 1.0",
        "flywheel_request_latency_seconds_bucket 0.5 2.0",
        "flywheel_request_latency_seconds_sum  0.502",
        "flywheel_waiting_texts  7.0",
    ):
        assert line in found, line
