"""Limits that a process meets: file descriptors, and memory."""

from __future__ import annotations

import os
import resource
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
    with_limit = _cgroup(victim)
    since = time.monotonic()
    if not eventually(lambda: not os.path.exists(f"/proc/{victim}"), 30):
        raise CannotMeasureError("the kernel has not killed the replica at its limit")
    after = time.monotonic() - since
    with suppress(OSError):
        with_limit.rmdir()
    return Fault(
        time.monotonic(),
        lambda: serving(admin) >= 2,
        f"the kernel killed a replica {after:.1f} s after the limit was set",
    )


def _cgroup(pid: int) -> Path:
    """Move the process into a cgroup of its own with half of the memory that it has. Raises CannotMeasureError."""
    old = (_CGROUPS / "memory").is_dir()
    group = (_CGROUPS / "memory" if old else _CGROUPS) / f"flywheel-faults-{pid}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(pid))
        if old:  # charge what it has already to the new group
            (group / "memory.move_charge_at_immigrate").write_text("3")
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(16 << 20))
    except OSError as error:
        raise CannotMeasureError(f"no cgroup with a limit of memory can be made here: {error}") from error
    return group
