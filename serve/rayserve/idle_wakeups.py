"""Ray's clock in this process, slowed from a hundred looks a second to two.

The main thread of each of Ray's actors wakes every 10 ms to ask whether a signal or its own end has come
(`CoreWorker.CheckSignal`); there is no setting for it. A server has eight actors, and each of their 800 wake-ups a
second takes the core and its caches from a model (docs/decisions/0020-rays-clock.md). The thread sleeps in an epoll of
Boost.Asio, in which one timerfd stands for all its timers. We have the kernel report that timer once (EPOLLONESHOT),
and arm it again from a thread of our own: nothing else changes for Ray, which merely sees its timer late.
"""

from __future__ import annotations

import ctypes
import os
import platform
import select
import struct
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from serve.rayserve import reports

_PERIOD_S = 0.5  # how late a signal may be seen; as often as Serve's controller looks at its replicas
_FIND_EVERY_S = 0.05
_EPOLL_CTL_MOD = 3
# struct epoll_event of epoll_ctl(2): events, data. The kernel packs it on this one architecture.
_EVENT = struct.Struct("=IQ" if platform.machine() == "x86_64" else "@IQ")


class Timer(NamedTuple):
    """A timerfd as it is registered with an epoll of this process."""

    epoll: int
    timer: int
    data: int  # what the epoll reports it as: a pointer of its owner's


def slow() -> None:
    """Slow Ray's clock for the life of this process, an actor of Ray's. Where it cannot be found, nothing changes."""
    threading.Thread(target=_keep, name="clock", daemon=True).start()


def find() -> Timer | None:
    """The timer of the epoll in which the main thread waits; None while it does something else.

    Raises OSError where the system does not say.
    """
    with open("/proc/self/syscall") as file:
        call = file.read().split()  # the system call and its arguments, or "running"
    if len(call) < 2:
        return None
    epoll = int(call[1], 16)
    if _kind(epoll) != "anon_inode:[eventpoll]":
        return None
    with open(f"/proc/self/fdinfo/{epoll}") as file:
        for line in file:  # tfd: 17 events: 19 data: 5581d2c0 pos:0 ino:...
            fields = line.split()
            if fields and fields[0] == "tfd:" and _kind(int(fields[1])) == "anon_inode:[timerfd]":
                return Timer(epoll, int(fields[1]), int(fields[5], 16))
    return None


def _kind(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def _keep() -> None:
    with suppress(OSError):  # another system than Linux, or a sandbox without these files
        while (found := find()) is None:
            time.sleep(_FIND_EVERY_S)
        libc = ctypes.CDLL(None)
        once = _EVENT.pack(select.EPOLLIN | select.EPOLLERR | select.EPOLLONESHOT, found.data)
        while libc.epoll_ctl(found.epoll, _EPOLL_CTL_MOD, found.timer, once) == 0:
            reports.took("idle_wakeups")
            time.sleep(_PERIOD_S)
