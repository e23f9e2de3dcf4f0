"""A server imports nothing of training, and no file has grown beyond reading."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve.flags import LEAN
from tests.conftest import ROOT

TRAINING_ONLY = (
    "torch", "transformers", "mlflow", "sklearn", "peft", "matplotlib", "onnx", "accelerate",
    "cleanlab", "scipy", "pandas",
)  # fmt: skip
SERVING = "serve.app, serve.deployments, serve.gateway, serve.control, serve.loop, serve.trainer"
MOST_LINES = 300
# Longer files, each with its reason.
LONGER = {
    "models/seed/simulate.py": "half of it is the lists of words that make a style",
}


@pytest.mark.parametrize("modules", [SERVING, "serve.cli"])
def test_serving_needs_no_training_library(modules: str) -> None:
    assert loaded_by(modules).isdisjoint(TRAINING_ONLY)


def test_only_replicas_load_what_runs_models() -> None:
    """The others only pass its settings on."""
    assert loaded_by("serve.cli, serve.app, serve.control, serve.loop, serve.trainer").isdisjoint({"onnxruntime"})


def loaded_by(modules: str) -> set[str]:
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(LEAN), str(ROOT)])},
    )  # fmt: skip
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "serve" in loaded
    return loaded


def sources() -> list[Path]:
    return sorted(file for package in ("serve", "models", "export") for file in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_file_is_too_long_to_read(file: Path) -> None:
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES or file.relative_to(ROOT).as_posix() in LONGER


def test_the_exceptions_are_still_needed() -> None:
    for name, reason in LONGER.items():
        assert reason
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) > MOST_LINES
