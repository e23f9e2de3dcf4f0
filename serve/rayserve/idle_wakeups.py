"""Slows the polling timer of Ray's actors from a hundred wake-ups a second to two.

The main thread of every Ray actor wakes each 10 ms to check for signals and its own exit (`CoreWorker.CheckSignal`);
there is no setting for it. A server has eight actors, and each of their 800 wake-ups a second takes the core and its
caches from a model (docs/decisions/0020-rays-clock.md). The thread sleeps in an epoll of Boost.Asio, in which a single
timerfd serves all timers. We have the kernel report that timer once (EPOLLONESHOT), and rearm it from a thread of our
own: the only effect on Ray is that its timer is late.
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

_PERIOD_S = 0.5  # the longest delay of a signal; also the interval of Serve's controller (environment.py)
_FIND_EVERY_S = 0.05
_EPOLL_CTL_MOD = 3
# struct epoll_event of epoll_ctl(2): events, data. The kernel packs it on this one architecture.
_EVENT = struct.Struct("=IQ" if platform.machine() == "x86_64" else "@IQ")


class Timer(NamedTuple):
    """A timerfd as it is registered with an epoll of this process."""

    epoll: int
    timer: int
    data: int  # the event's user data: a pointer that belongs to the epoll's owner


def slow() -> None:
    """Slow the timer for the life of this process, a Ray actor. Without effect when the timer cannot be found."""
    threading.Thread(target=_keep, name="clock", daemon=True).start()


def find() -> Timer | None:
    """The timer of the epoll in which the main thread waits; None while the thread is not waiting in an epoll.

    Raises OSError on a system without the files in /proc.
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
    with suppress(OSError):  # not Linux, or a sandbox without these files
        while (found := find()) is None:
            time.sleep(_FIND_EVERY_S)
        libc = ctypes.CDLL(None)
        once = _EVENT.pack(select.EPOLLIN | select.EPOLLERR | select.EPOLLONESHOT, found.data)
        while libc.epoll_ctl(found.epoll, _EPOLL_CTL_MOD, found.timer, once) == 0:
            reports.record("idle_wakeups")
            time.sleep(_PERIOD_S)
