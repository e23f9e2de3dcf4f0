"""What this process may use of its machine, who runs it, and which version of Flywheel it is."""

from __future__ import annotations

import getpass
import math
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def flywheel_version() -> str:
    """The version of this program; `0+unknown` where it is not installed."""
    try:
        return version("flywheel-serve")
    except PackageNotFoundError:
        return "0+unknown"


def user_name() -> str:
    """The name of the user that runs this process; `uid 1000` where the system has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


def usable_cores() -> int:
    """The number of cores on which this process may run; in a container, fewer than the machine has.

    A cgroup's quota of 1.5 cores counts as 2.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota())))


def usable_memory() -> int:
    """The most bytes of memory that this process may use: its cgroups' limit, or what the machine has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_numbers("memory.max", "memory"), *_numbers("memory.limit_in_bytes", "memory")])


def usable_threads() -> float:
    """The most threads that this process and those beside it in its cgroups may have; infinite without a limit."""
    return min([math.inf, *_numbers("pids.max", "pids")])


def _quota() -> float:
    """Cores that the cgroups grant at most; infinite without a quota."""
    quotas = [math.inf]
    for folder in _folders("cpu"):
        quota, period = _words(folder / "cpu.max"), _words(folder / "cpu.cfs_quota_us")
        if len(quota) == 2 and quota[0].isdigit():  # version 2; `max` is no quota
            quotas.append(int(quota[0]) / int(quota[1]))
        if period and period[0].isdigit():  # version 1; -1 is no quota
            quotas.append(int(period[0]) / int(_words(folder / "cpu.cfs_period_us")[0]))
    return min(quotas)


def _numbers(name: str, controller: str) -> list[int]:
    words = [_words(folder / name) for folder in _folders(controller)]
    return [int(word[0]) for word in words if word and word[0].isdigit()]


def _folders(controller: str) -> list[Path]:
    """This process's cgroup of `controller` and all above it, in versions 1 and 2; each may have a limit.

    In a container /proc/self/cgroup may name a path of the host's that is not visible here; then the root of the mount
    is the container's own.
    """
    found = []
    for line in _lines(_MEMBERSHIP):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for root in (
            (_CGROUPS / controllers, _CGROUPS / controller) if controllers else (_CGROUPS, _CGROUPS / "unified")
        ):
            own = root / path.lstrip("/")
            found += [folder for folder in (own, *own.parents) if folder == root or root in folder.parents]
    return list(dict.fromkeys(found))


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
