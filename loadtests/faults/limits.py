"""Limits that a process meets: file descriptors, and memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from loadtests.faults.clients import Traffic
from loadtests.faults.measurement import Fault
from loadtests.faults.processes import admin_socket, serving
from loadtests.faults.server import REPLICA, CannotMeasureError, Server, eventually
from loadtests.faults.stores import taken_again

_USED_UP_S = 20.0
_CGROUPS = Path("/sys/fs/cgroup")
_LIMIT_MB, _KILLED_S = 64, 10.0
_EATER = f"import sys, time; sys.stdin.read(1); x = bytearray({2 * _LIMIT_MB} << 20); time.sleep({_KILLED_S})"


def descriptors(server: Server, seen: Traffic) -> Fault:
    """One replica may open no file and accept no connection for a while."""
    victim = server.pids(REPLICA)[0]
    before = resource.prlimit(victim, resource.RLIMIT_NOFILE)
    opened = max(int(name) for name in os.listdir(f"/proc/{victim}/fd")) + 1
    resource.prlimit(victim, resource.RLIMIT_NOFILE, (opened, before[1]))
    try:
        time.sleep(_USED_UP_S)
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(victim, resource.RLIMIT_NOFILE, before)
    admin, fault = admin_socket(server), taken_again(seen, f"a replica's were used up for {_USED_UP_S:g} s")
    return fault._replace(whole=lambda: fault.whole() and serving(admin) >= 2)


def memory(server: Server, seen: Traffic) -> Fault:
    """One replica meets the limit of its cgroup, and the kernel kills it, as in a container."""
    admin, victim = admin_socket(server), server.pids(REPLICA)[0]
    at_limit(victim)
    return Fault(time.monotonic(), lambda: serving(admin) >= 2, "the kernel killed it")


def at_limit(victim: int) -> None:
    """Have the kernel kill `victim` for memory. Raises CannotMeasureError where no cgroup can be made.

    Linux does not charge a cgroup for what a process had before it was moved there, so another process in it uses up
    what is left. The kernel then kills the one with the higher score, which Ray gives to its workers.
    """
    group = (_CGROUPS / "memory" if (_CGROUPS / "memory").is_dir() else _CGROUPS) / f"flywheel-faults-{victim}"
    limit = "memory.limit_in_bytes" if group.parent != _CGROUPS else "memory.max"
    eater = subprocess.Popen([sys.executable, "-c", _EATER], stdin=subprocess.PIPE)
    try:
        group.mkdir()
        for pid in (victim, eater.pid):
            (group / "cgroup.procs").write_text(str(pid))
        (group / limit).write_text(str(_LIMIT_MB << 20))
        eater.communicate(b"\n")
        if not eventually(lambda: not os.path.exists(f"/proc/{victim}"), _KILLED_S):
            raise CannotMeasureError("the kernel has not killed the replica at its limit")
    except OSError as error:
        raise CannotMeasureError(f"no cgroup with a limit of memory can be made here: {error}") from error
    finally:
        eater.kill()
        eater.wait()
        with suppress(OSError):
            group.rmdir()
