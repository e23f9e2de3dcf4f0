"""Trainings in processes of their own end with the command that has started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import ROOT
from tests.helpers.waiting import eventually

TRAIN = """
import sys
from pathlib import Path
from models.training.candidate import TrainingJob
from models.training.parallel import build_in_parallel
if __name__ == "__main__":
    for _ in build_in_parallel([TrainingJob("sentiment")], Path(sys.argv[1]), lambda *_: print("trains", flush=True)):
        pass
"""


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends them")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_training_ends_with_its_command(number: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "train.py"  # spawned processes import it
    program.write_text(TRAIN)
    with subprocess.Popen(
        [sys.executable, program, str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"trains\n"
            family = children(process.pid)
            assert len(family) >= 2
            process.send_signal(number)
            process.wait(10)
            eventually(lambda: not [pid for pid in family if Path(f"/proc/{pid}").exists()], 5)
        finally:
            process.kill()
            for pid in family:
                if Path(f"/proc/{pid}").exists():
                    os.kill(pid, signal.SIGKILL)
