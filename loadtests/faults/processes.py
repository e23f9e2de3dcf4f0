"""Processes that are killed or frozen: replicas, HAProxy, its manager, Serve's controller, the raylet, a retraining."""

from __future__ import annotations

import csv
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from loadtests.faults.clients import Traffic, post
from loadtests.faults.measurement import Fault
from loadtests.faults.server import (
    CONTROLLER,
    HAPROXY,
    MANAGER,
    RAYLET,
    REPLICA,
    RETRAINING,
    CannotMeasureError,
    Server,
    command_line,
    eventually,
)

OPERATIONS = "/v2/repository/models/intent"


def replica_killed(server: Server, seen: Traffic) -> Fault:
    return _ended_replica(server, signal.SIGKILL)


def _ended_replica(server: Server, number: signal.Signals) -> Fault:
    """Send one replica the signal; whole when as many as before serve, and it is not one of them."""
    admin, before = admin_socket(server), len(server.pids(REPLICA))
    if before < 2:
        raise CannotMeasureError("the task has fewer than two replicas: one is ended, another is to answer")
    victim = server.pids(REPLICA)[0]
    since = time.monotonic()
    os.kill(victim, number)
    return Fault(since, lambda: not _exists(victim) and serving(admin) >= before)


def replica_frozen(server: Server, seen: Traffic) -> Fault:
    return _ended_replica(server, signal.SIGSTOP)


def haproxy_killed(server: Server, seen: Traffic) -> Fault:
    admin, victim = admin_socket(server), server.one(HAPROXY)
    since = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    return Fault(since, lambda: ask(admin, "show info") != "")


def manager_killed(server: Server, seen: Traffic) -> Fault:
    """Whole when the next manager's own HAProxy serves."""
    admin, victim = admin_socket(server), server.one(MANAGER)
    since = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    return Fault(since, lambda: _parent(_pid(admin)) in server.pids(MANAGER) and serving(admin) >= 2)


def controller_killed(server: Server, seen: Traffic) -> Fault:
    """Whole when another controller runs that replaces a replica, as only a controller does."""
    victim = server.one(CONTROLLER)
    since = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    if not eventually(lambda: server.pids(CONTROLLER) not in ([], [victim]), 60):
        return Fault(since, lambda: False, "no other controller was started")
    return Fault(since, lambda: server.is_ready() and len(server.pids(REPLICA)) >= 2)


def raylet_killed(server: Server, seen: Traffic) -> Fault:
    """The server ends, as nothing starts a raylet again; it is started as a supervisor would."""
    since = time.monotonic()
    os.kill(server.one(RAYLET), signal.SIGKILL)
    ended = eventually(lambda: server.process.poll() is not None, 60)
    if not ended:
        return Fault(since, lambda: False, "the server did not end")
    code, after = server.process.returncode, time.monotonic() - since
    server.restart()
    return Fault(since, server.is_ready, f"the server ended with {code} after {after:.1f} s, and was started again")


def retraining_killed(server: Server, seen: Traffic) -> Fault:
    """Whole when the server says how the run ended."""
    status = post(f"{server.url}{OPERATIONS}/retrain", {"actor": "faults", "reason": "to be killed"})
    if status != 202:
        raise CannotMeasureError(f"a retraining cannot be requested: {status}")
    if not eventually(lambda: bool(server.pids(RETRAINING)), 60):
        raise CannotMeasureError("no retraining has begun within 60 s")
    time.sleep(3)
    if not (victims := server.pids(RETRAINING)):
        raise CannotMeasureError("the retraining ended before it could be killed")
    since = time.monotonic()
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def told() -> bool:
        return server.get(f"{OPERATIONS}/retrain")["requests"][0]["state"] != "running"

    return Fault(since, told)


# --- HAProxy ---------------------------------------------------------------------------------------------------------


def admin_socket(server: Server) -> str:
    """Path of the administrator's socket of the server's HAProxy. Raises CannotMeasureError without HAProxy."""
    arguments = command_line(server.one(HAPROXY))
    return str(Path(arguments[arguments.index("-f") + 1]).with_name("admin.sock"))


def ask(admin: str, command: str) -> str:
    """HAProxy's answer; empty while none listens."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection, connection.makefile() as answer:
        connection.settimeout(2)
        connection.connect(admin)
        connection.sendall(f"{command}\n".encode())
        return answer.read()
    return ""


def serving(admin: str) -> int:
    """How many replicas of intent HAProxy sends requests to."""
    rows = csv.DictReader(ask(admin, "show stat").removeprefix("# ").splitlines())
    return sum("SERVE_REPLICA_intent" in row["svname"] and row["status"].startswith("UP") for row in rows)


def _pid(admin: str) -> int | None:
    for line in ask(admin, "show info").splitlines():
        if line.startswith("Pid:"):
            return int(line.removeprefix("Pid:"))
    return None


def _parent(pid: int | None) -> int | None:
    with suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def _exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
