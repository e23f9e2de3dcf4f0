"""The disk of the home: full, and slow. Needs root and loop devices."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadtests.faults.clients import Traffic
from loadtests.faults.measurement import Fault
from loadtests.faults.server import CannotMeasureError, Server, server
from loadtests.faults.stores import taken_again
from loadtests.servers import home
from tests.helpers.disks import Disk, own_disk

_FULL_S, _SLOW_S, _STALL_S = 20.0, 20.0, 0.5
_MEGABYTES = 400


@contextmanager
def on_disk() -> Iterator[tuple[Server, Disk]]:
    """A server whose home is on a disk of its own. Raises CannotMeasureError where none can be mounted."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fw-", ignore_cleanup_errors=True)))
        disk = stack.enter_context(own_disk(folder, _MEGABYTES))
        if disk is None:
            raise CannotMeasureError("this machine lets nobody mount a disk of their own")
        own_home = folder / "disk" / "home"
        shutil.copytree(home() / "releases", own_home / "releases")
        shutil.copytree(home() / "bundles" / "intent", own_home / "bundles" / "intent")
        yield stack.enter_context(server(folder, own_home=own_home)), disk


def disk_full(server: Server, disk: Disk, seen: Traffic) -> Fault:
    """No block is left for a while. The champion's release is compared before and after."""
    release = server.home / "releases" / "intent.json"
    before = release.read_bytes()
    disk.fill()
    try:
        time.sleep(_FULL_S)
    finally:
        disk.make_room()
    fault = taken_again(seen, f"full for {_FULL_S:g} s")
    return fault._replace(whole=lambda: fault.whole() and release.read_bytes() == before)


def disk_slow(disk: Disk, seen: Traffic) -> Fault:
    """Writes stall for half a second, every second."""
    until = time.monotonic() + _SLOW_S
    while time.monotonic() < until:
        disk.freeze()
        time.sleep(_STALL_S)
        disk.thaw()
        time.sleep(_STALL_S)
    return taken_again(seen, f"writes stalled {_STALL_S:g} s in every second, for {_SLOW_S:g} s")
