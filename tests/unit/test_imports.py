"""A server imports nothing of training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve.rayserve.environment import STUBS
from tests.helpers.command import ROOT

TRAINING_ONLY = (
    "torch", "transformers", "mlflow", "sklearn", "peft", "matplotlib", "onnx", "accelerate",
    "cleanlab", "scipy", "pandas",
)  # fmt: skip
PARENTS = "serve.rayserve.server, serve.api.control, serve.controller.loop, serve.rayserve.jobs"
SERVING = f"{PARENTS}, serve.rayserve.deployments, serve.api.gateway"


@pytest.mark.parametrize("modules", [SERVING, "serve.cli.main"])
def test_serving_needs_no_training_library(modules: str) -> None:
    assert loaded_by(modules).isdisjoint(TRAINING_ONLY)


def test_only_replicas_load_what_runs_models() -> None:
    """The others only pass its settings on."""
    assert loaded_by(f"serve.cli.main, {PARENTS}").isdisjoint({"onnxruntime"})


def test_a_family_is_found_before_what_trains_it_is_loaded() -> None:
    """So that `flywheel train` refuses a wrong file at once."""
    loaded = loaded_by("serve, models.training.pipeline, models.retraining.run")
    assert loaded.isdisjoint({*TRAINING_ONLY, "onnxruntime"})


def loaded_by(modules: str) -> set[str]:
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(STUBS), str(ROOT)])},
    )  # fmt: skip
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "serve" in loaded
    return loaded


@pytest.mark.parametrize("module", ["export.session", "export.graph.optimize", "export.packed, onnxruntime"])
def test_onnxruntime_sends_nothing_home(module: str, tmp_path: Path) -> None:
    """When its telemetry is on, it creates a device id below the user's home directory as it is imported."""
    for telemetry, files in (("", 0), ("0", 1)):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_", "CI"))}
        environment |= {"HOME": str(tmp_path), **({"ORT_DISABLE_TELEMETRY": telemetry} if telemetry else {})}
        subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, env=environment, check=True, timeout=120)
        assert len(list(tmp_path.rglob("deviceid"))) == files
