"""The `flywheel` command in the process of the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serve.cli.main import main
from tests.helpers.command import ROOT, Command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The `flywheel` command in this process, which takes half a second less; what is no sentence of ours is raised."""

    def command(*args: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["flywheel", *args])
        if home:
            monkeypatch.setenv("FLYWHEEL_HOME", str(home))
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        assert isinstance(code, int)
        return subprocess.CompletedProcess(args, code, said.out, said.err)

    return command
