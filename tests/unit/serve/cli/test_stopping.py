"""A stop is heard by one process of a group, once, and by no other thread or process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve.cli.stopping import _MAX_ABORT_S
from tests.helpers.command import ROOT
from tests.helpers.waiting import eventually

# A server with a process of its own, which would end at a signal; stopped, it says so and waits for its input to end.
PROGRAM = """
import subprocess, sys
from serve.cli import stopping
stopping._MAX_ABORT_S = 1.0
signals = stopping.StopSignals()
other = subprocess.Popen(["sleep", "60"])
signals.ready = len(sys.argv) < 2
print(other.pid, flush=True)
signals.requested.wait()
print("requested", flush=True)
sys.stdin.read()
print("drained", other.poll(), flush=True)
other.kill()
"""
MASKS = """
import os, signal, serve.cli.main
for task in os.listdir("/proc/self/task"):
    status = open(f"/proc/self/task/{task}/status").read()
    blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk:")).split()[1], 16)
    if int(task) != os.getpid():
        assert all(blocked >> number - 1 & 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)), task
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


def start(*arguments: str, nohup: bool = False) -> tuple[subprocess.Popen[str], int]:
    """The program in a group of its own, and the id of its other process."""
    process = subprocess.Popen(
        [*(["nohup"] if nohup else []), sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_group_that_is_signalled_three_times_drains_once(number: signal.Signals) -> None:
    process, other = start()
    for _ in range(3):
        os.killpg(process.pid, number)
    assert process.stdout
    assert process.stdout.readline() == "requested\n"
    os.kill(process.pid, signal.SIGTERM)
    rest, _ = process.communicate()
    assert rest == "drained None\n"
    assert process.returncode == 0
    eventually(lambda: not Path(f"/proc/{other}").exists(), 5)


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    process, _ = start(nohup=True)
    os.killpg(process.pid, signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)
    rest, _ = process.communicate()
    assert rest == "requested\ndrained None\n"


def test_a_start_that_hangs_is_left() -> None:
    assert _MAX_ABORT_S < 10  # after which `docker stop` kills
    process, other = start("not ready")
    process.terminate()
    assert process.wait(5) == 0  # its input is open, so that it would wait for ever
    process.communicate()
    eventually(lambda: not Path(f"/proc/{other}").exists(), 5)


def test_no_thread_that_imports_start_takes_a_signal() -> None:
    subprocess.run([sys.executable, "-c", MASKS], cwd=ROOT, check=True, timeout=60)
