"""One server for each home, and a sentence that names the one that has it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.home import server_lock
from serve.home_lock import HomeLockError, _try_lock, lock_home
from tests.helpers.command import ROOT
from tests.helpers.disks import read_only

HOLD = """
import resource, sys
from pathlib import Path
from serve.home_lock import lock_home
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # as a full disk, for this process alone
with lock_home(Path(sys.argv[1]), "http://127.0.0.1:8000") as locked:
    print(locked, flush=True)
    sys.stdin.read()
"""
URL = "http://127.0.0.1:9000"


@pytest.fixture(params=["room", "full"])
def holder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `tmp_path`, on a disk with room or on a full one."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), request.param],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_a_second_server_is_refused_with_the_name_of_the_first(
    holder: subprocess.Popen[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    elsewhere = tmp_path.with_name(tmp_path.name + "-link")  # the same home by another path
    elsewhere.symlink_to(tmp_path)
    for home in (tmp_path, elsewhere):
        with pytest.raises(HomeLockError) as caught, lock_home(home, URL):
            pass
        sentence = str(caught.value)
        assert sentence.startswith(f"The home {home} is in use by ")
        assert "Stop that server first" in sentence
        named = f"process id {holder.pid} on {socket.gethostname()}, at http://127.0.0.1:8000, since 2"
        full = request.node.callspec.params["holder"] == "full"
        assert ("another server" if full else named) in sentence


def test_the_lock_of_a_killed_server_is_free(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with lock_home(tmp_path, URL) as locked:
        assert locked
        assert URL in server_lock(tmp_path).read_text()


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_home(tmp_path / "new", URL) as locked:
            assert locked


@pytest.mark.parametrize("below", ["file", "file/home"])
def test_a_home_that_is_a_file_is_told(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HomeLockError, match="is not a directory, or lies below a file"),
        lock_home(tmp_path / below, URL),
    ):
        pass


def test_a_home_that_cannot_be_written_is_told() -> None:
    sentence = rf"The home /proc/home cannot be written: .*FLYWHEEL_HOME=.* user id {os.getuid()} the right"
    with pytest.raises(HomeLockError, match=sentence), lock_home(Path("/proc/home"), URL):
        pass


@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_home_is_served_and_locked_if_the_file_is_there(tmp_path: Path, there: bool) -> None:
    if there:
        server_lock(tmp_path).write_text("")
    with read_only(tmp_path) as possible:
        if not possible:
            pytest.skip("this machine lets nobody mount")
        with lock_home(tmp_path, URL) as locked:
            assert locked == there


def test_the_lock_of_a_full_home_ends_without_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), "full"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_file_that_may_only_be_looked_at_is_not_locked(tmp_path: Path) -> None:
    """EBADF, as NFS answers when a file was opened for reading only."""
    server_lock(tmp_path).write_text("")
    with open(os.open(server_lock(tmp_path), os.O_PATH), "rb", buffering=0) as file:
        assert not _try_lock(file, tmp_path)
