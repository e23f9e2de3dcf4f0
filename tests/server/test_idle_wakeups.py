"""Ray's clock is slowed in every actor of a server, and what it looks for is still seen."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from serve.config import Config, load_config
from serve.rayserve import idle_wakeups
from serve.rayserve.environment import flags_of_serve
from tests.helpers.server import Server, children
from tests.helpers.waiting import eventually

pytestmark = [
    pytest.mark.needs_tweak("idle_wakeups"),
    pytest.mark.skipif(not Path("/proc/self/syscall").exists(), reason="needs Linux, and its /proc/PID/syscall"),
]


ONCE = 0x4000_0000  # EPOLLONESHOT, of <sys/epoll.h>
# Actors as Serve's are, in a Ray of their own: each line names a method, for the actor or for a new one.
ASK_ACTORS = """
import os, sys
import ray
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

assert WORKER_PROCESS_SETUP_HOOK_ENV_VAR in os.environ

@ray.remote(num_cpus=0)
class Actor:
    async def pid(self):
        return os.getpid()

    async def end(self):
        ray.actor.exit_actor()

ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
for line in sys.stdin:
    if line.strip() == "new":
        actor = Actor.remote()
        line = "pid"
    try:
        print(ray.get(getattr(actor, line.strip()).remote()), flush=True)
    except ray.exceptions.RayError as error:
        print(type(error).__name__, flush=True)
"""
Program = subprocess.Popen[str]


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    environment = {**os.environ, **flags_of_serve(Config())}
    with subprocess.Popen(
        [sys.executable, "-c", ASK_ACTORS], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        yield program
        program.stdin.close()  # type: ignore[union-attr]


@pytest.fixture
def actor(program: Program) -> int:
    """The process of a new actor, slowed."""
    pid = int(ask(program, "new"))
    eventually(lambda: is_slowed(pid), 10)
    return pid


def test_every_actor_of_a_server_is_slowed(server: Server) -> None:
    replica_count = 1 + sum(task.replica_count() for task in load_config().tasks.values())  # one is the control's
    count_of = {"ServeController": 1, "ProxyActor": 1, "HAProxyManager": 1, "ServeReplica": replica_count}
    for name, count in count_of.items():
        actors = children(server.process.pid, f"ray::{name}")
        assert len(actors) == count, name
        assert all(is_slowed(pid) for pid in actors), name


def test_a_slowed_actor_hardly_wakes_and_answers(program: Program, actor: int) -> None:
    before = wake_ups(actor)
    time.sleep(3)
    assert 0 < wake_ups(actor) - before < 30  # Ray's own are 300
    assert ask(program, "pid") == str(actor)


def test_a_slowed_actor_ends_itself(program: Program, actor: int) -> None:
    assert ask(program, "end") == "ActorDiedError"
    eventually(lambda: not Path(f"/proc/{actor}").exists(), 10)


def test_a_slowed_actor_heeds_a_signal(actor: int) -> None:
    os.kill(actor, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{actor}").exists(), 10)


def test_a_process_that_is_none_of_rays_has_no_clock() -> None:
    assert idle_wakeups.find() is None


def ask(program: Program, method: str) -> str:
    assert program.stdin
    assert program.stdout
    program.stdin.write(method + "\n")
    program.stdin.flush()
    return program.stdout.readline().strip()


def is_slowed(pid: int) -> bool:
    """Whether the kernel reports one of the timers in the process' epolls only once until it is armed again."""
    timers = []
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):
            for timer, events in re.findall(r"^tfd:\s+(\d+) events:\s+([0-9a-f]+)", info.read_text(), re.M):
                if os.readlink(f"/proc/{pid}/fd/{timer}") == "anon_inode:[timerfd]":
                    timers.append(int(events, 16) & ONCE)
    return timers.count(ONCE) == 1


def wake_ups(pid: int) -> int:
    """How often the main thread has gone to sleep so far."""
    found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    return int(found[1])
