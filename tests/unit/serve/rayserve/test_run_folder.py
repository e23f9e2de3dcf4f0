"""A run's folder is in memory if there is room, and goes with its server, however that ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve.rayserve import run_folder as module
from serve.rayserve.run_folder import run_folder
from serve.rayserve.start_error import StartError
from tests.helpers.command import ROOT

_HOLDS = """
import sys
from pathlib import Path
from serve.rayserve import run_folder as module
module._MEMORY = Path(sys.argv[1])
with module.run_folder(Path("/tmp")) as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev/shm."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(module, "_MEMORY", folder)
    return folder


def test_it_is_in_memory_and_gone_afterwards(memory: Path, tmp_path: Path) -> None:
    with run_folder(tmp_path) as folder:
        assert folder.parent == memory
        (folder / "file").write_text("x")
    assert list(memory.iterdir()) == []


def test_what_a_killed_server_left_goes_with_the_next_start_and_what_a_living_one_uses_stays(memory: Path) -> None:
    command = [sys.executable, "-c", _HOLDS, str(memory)]
    found = []
    servers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        for server in servers:
            assert server.stdout is not None
            found.append(Path(server.stdout.readline().strip()))
        servers[0].kill()
        servers[0].wait()
        for folder in found:
            os.utime(folder, (0, 0))
        (memory / "fw-of-another-kind").mkdir()
        with run_folder(Path("/tmp")) as folder:
            assert set(memory.iterdir()) == {found[1], folder, memory / "fw-of-another-kind"}
    finally:
        for server in servers:
            server.kill()
            server.communicate()


@pytest.mark.parametrize("missing", [True, False])
def test_without_room_in_memory_it_is_elsewhere(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    if missing:
        memory.rmdir()
    else:
        monkeypatch.setattr(module, "_MIN_FREE_BYTES", 1 << 60)
    with run_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
    assert not folder.exists()


def test_no_place_at_all_is_a_sentence(memory: Path, tmp_path: Path) -> None:
    memory.rmdir()
    with pytest.raises(StartError, match="TMPDIR="), run_folder(tmp_path / "none"):
        pass
