"""The `flywheel` command in a process of its own, and where it runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]
"""what runs `flywheel` with these arguments"""


def flywheel(*args: str, home: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the `flywheel` command as a user does; never raises on a non-zero exit."""
    env = {**os.environ, **({"FLYWHEEL_HOME": str(home)} if home else {}), "COLUMNS": "200"}
    return subprocess.run(
        [Path(sys.executable).parent / "flywheel", *args],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence of a command that failed as ours fail."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ")
