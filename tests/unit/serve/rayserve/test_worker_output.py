"""A worker prints to a full disk without an error, and to any other as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import ROOT

_PRINTS = """
import sys
if sys.argv[1] == "dropping":
    from serve.rayserve.worker_output import drop_what_cannot_be_written
    drop_what_cannot_be_written()
print("an ä and a \\udc80", file=sys.stderr)
print("an ä", flush=True)
print("x" * 100_000)
sys.stdout.buffer.write(b"bytes\\n")
sys.stdout.flush()
assert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
"""


def run(kind: str, output: Path) -> int:
    with output.open("wb") as file:
        return subprocess.run([sys.executable, "-c", _PRINTS, kind], cwd=ROOT, stdout=file, stderr=file).returncode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_what_a_full_disk_does_not_take_is_dropped() -> None:
    assert run("plain", Path("/dev/full")) != 0
    assert run("dropping", Path("/dev/full")) == 0


def test_what_can_be_written_is(tmp_path: Path) -> None:
    assert run("plain", tmp_path / "plain") == 0
    assert run("dropping", tmp_path / "dropping") == 0
    assert (tmp_path / "dropping").read_bytes() == (tmp_path / "plain").read_bytes()
