"""Guards one HAProxy: starts it again at once when it is killed, and ends it some time after Serve's manager is gone.

Serve's HAProxyManager starts HAProxy. It notices HAProxy's death by three failed checks, and would end it by its own
death: in both cases nobody is answered for seconds. So HAProxy's wrapper (haproxy.py) starts this program beside each:

- HAProxy was killed: start it again, with the configuration that it had. The manager cannot reload a HAProxy that is
  not its own, so it is ended; the one that Serve starts in its place takes over (haproxy.py, `take_over`).
- The manager has died: let HAProxy serve until the next manager's HAProxy has taken over; end it if none comes.
- The raylet has died: end HAProxy, or it would keep the port without replicas behind it.

Run as a program, with the standard library alone: it lives as long as its HAProxy, 10 MB each.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import NamedTuple

GUARD = "HAPROXY_GUARD"
ALONE_S = 60.0  # without a manager; Serve starts the next one within some ten seconds
_MAX_RESTARTS, _RESTARTS_S = 5, 60.0  # what dies more often than this is not helped by another start
_START_S, _POLL_S = 5.0, 0.05
_ANSWER_S = 1.0


class Guarded(NamedTuple):
    """What is guarded: process ids, and what is needed to start HAProxy again."""

    haproxy: int
    manager: int
    raylet: int
    program: str
    configuration: str
    """path of the configuration that HAProxy was started with (`kept`)"""
    admin: str
    """path of its administrator's socket"""


def kept(configuration: str) -> str:
    """Where the configuration of the running HAProxy is kept: Serve overwrites its own file before it reloads."""
    return configuration + ".kept"


def has_applications(configuration: str) -> bool:
    """Whether the file routes any request to a replica; a server that ends has deleted its applications."""
    with suppress(OSError), open(configuration, encoding="utf-8") as file:
        return re.search(r"^\s*use_backend\b", file.read(), re.M) is not None
    return False


def pid_at(admin: str) -> int | None:
    """Process id of the HAProxy that answers at the socket; None if none does."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(_ANSWER_S)
        asked.connect(admin)
        asked.sendall(b"show info\n")
        found = re.search(rb"^Pid: (\d+)", b"".join(iter(lambda: asked.recv(65536), b"")), re.M)
        return int(found[1]) if found else None
    return None


def parent_of(pid: int) -> tuple[int, str]:
    """Process id and name of the process's parent. Raises OSError."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{parent}/comm", encoding="utf-8") as file:
        return parent, file.read().strip()


def start(program: str, configuration: str, admin: str) -> bool:
    """Guard this process, which becomes HAProxy. Returns whether it is: that needs a raylet, and Linux's pidfd.

    HAProxy finds the guard by the environment, and ends with it (guarded.lua).
    """
    try:
        manager, _ = parent_of(os.getpid())
        raylet, name = parent_of(manager)
        if name != "raylet" or not hasattr(os, "pidfd_open"):
            return False
        guarded = Guarded(os.getpid(), manager, raylet, program, kept(configuration), admin)
        command = [sys.executable, "-S", "-E", os.path.abspath(__file__), *map(str, guarded)]
        guard = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        os.environ[GUARD] = str(guard.pid)
    except OSError:
        return False
    return True


class Guard:
    """The guard of one HAProxy, and of those that it starts."""

    def __init__(self, guarded: Guarded):
        self._it = guarded
        self._pid = guarded.haproxy
        self._haproxy: int | None = os.pidfd_open(guarded.haproxy)
        self._manager: int | None = _opened(guarded.manager)
        self._raylet = os.pidfd_open(guarded.raylet)
        self._current = False  # whether it has answered: one that was never ready is its manager's affair
        self._until = float("inf")
        self._restarts: list[float] = []
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Returns when there is nothing to guard any more."""
        try:
            self._run()
        finally:
            self._reap()

    def _run(self) -> None:
        while True:
            ended = self._wait()
            if self._raylet in ended:
                self._end()
                return
            if self._manager in ended or self._manager is None:
                self._manager = None
                self._until = min(self._until, time.monotonic() + ALONE_S)
            if self._haproxy in ended and not self._restart():
                return
            if time.monotonic() > self._until:
                self._end()
                return

    def _wait(self) -> set[int]:
        """Those of the three processes that have ended, as their descriptors."""
        poll = select.poll()
        for descriptor in (self._haproxy, self._manager, self._raylet):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        if not self._current:
            self._current = pid_at(self._it.admin) == self._pid
        seconds = self._until - time.monotonic() if self._current else _POLL_S
        return {found for found, _ in poll.poll(None if seconds == float("inf") else max(0.0, seconds) * 1000 + 1)}

    def _restart(self) -> bool:
        """Start HAProxy again, if it has not been replaced or ended on purpose. Returns whether it runs."""
        self._reap()
        while self._may_restart():
            self._restarts.append(time.monotonic())
            command = [self._it.program, "-db", "-f", self._it.configuration, "-dR"]
            process = self._child = subprocess.Popen(command, env={**os.environ, GUARD: str(os.getpid())})
            until = time.monotonic() + _START_S
            while process.poll() is None and time.monotonic() < until:
                if pid_at(self._it.admin) == process.pid:
                    self._pid, self._haproxy, self._current = process.pid, os.pidfd_open(process.pid), True
                    _kill(self._manager)
                    return True
                time.sleep(_POLL_S)
            process.kill()
            self._reap()
        return False

    def _reap(self) -> None:
        """Forget the HAProxy that this guard started; it has ended, or is being killed."""
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _may_restart(self) -> bool:
        since = time.monotonic() - _RESTARTS_S
        self._restarts = [at for at in self._restarts if at > since]
        return (
            self._current
            and len(self._restarts) < _MAX_RESTARTS
            and pid_at(self._it.admin) is None  # else its successor answers
            and has_applications(self._it.configuration)
        )

    def _end(self) -> None:
        _kill(self._haproxy)


def _opened(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _kill(descriptor: int | None) -> None:
    with suppress(OSError):
        if descriptor is not None:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    haproxy, manager, raylet, program, configuration, admin = arguments
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # as HAProxy: they are meant for the server
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):  # it has ended already
        Guard(Guarded(int(haproxy), int(manager), int(raylet), program, configuration, admin)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
