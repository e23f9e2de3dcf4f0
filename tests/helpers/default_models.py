"""The default models of a home, trained in a process of their own while tests run that need no trained model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from models.home import release_file
from models.releases.release import awaits_encoder
from tests.helpers.command import ROOT

_TASKS = ("intent", "sentiment", "recommendation")
_TRAIN = """
from rich.console import Console
from serve.config import load_config
from serve.cli.progress import prepare
if __name__ == "__main__":
    prepare(load_config(), Console())
"""


class TrainingFailed(Exception):
    """Raised when the default models could not be trained; says what the training printed."""


class DefaultModels:
    """The default models of `home`: there already, or trained now. Files of the training are in `folder`."""

    def __init__(self, home: Path, folder: Path):
        self.home = home
        self._program, self._log = folder / "train.py", folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._threads = 0

    def are_missing(self) -> bool:
        """First versions do not count: a server would train the others beside the tests."""
        return any(not release_file(self.home, task).exists() or awaits_encoder(self.home, task) for task in _TASKS)

    def start_training(self) -> None:
        """Train them, two at a time with a torch thread each, and let this process have one thread as well.

        On two cores a second one would mostly wait for its turn, and the first for the second.
        """
        import torch

        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._program.write_text(_TRAIN)  # a file: its worker processes import it again
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(self._program)],
                cwd=ROOT, env={**os.environ, "FLYWHEEL_HOME": str(self.home)}, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait(self) -> None:
        """Return when all of them are there. Raises TrainingFailed."""
        if self._process is None:
            return
        if self._process.wait() != 0:
            raise TrainingFailed(self._log.read_text())
        import torch

        torch.set_num_threads(self._threads)

    def stop(self) -> None:
        """End a training that nobody waits for any more; its workers end with it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
