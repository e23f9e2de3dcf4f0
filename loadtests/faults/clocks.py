"""The clock of the server's processes jumps by an hour. Needs libfaketime (Debian: apt-get install libfaketime)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadtests.faults.clients import Traffic
from loadtests.faults.measurement import Fault
from loadtests.faults.server import CannotMeasureError, RunError, Server, server
from loadtests.faults.stores import taken_again

_HOUR_S = 3600
_AFTER_S = 20.0


@contextmanager
def on_own_clock(folder: Path) -> Iterator[tuple[Server, Path]]:
    """A server with a wall clock of its own, and the file that shifts it. Its monotonic clock is the machine's.

    Raises CannotMeasureError without libfaketime.
    """
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        raise CannotMeasureError("there is no libfaketime (Debian: apt-get install libfaketime)")
    shift = folder / "shift"
    folder.mkdir(parents=True, exist_ok=True)
    shift.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(shift),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    with ExitStack() as stack:
        try:
            running = stack.enter_context(server(folder, environment=environment))
        except RunError as error:
            last = str(error).strip().splitlines()[-1]
            raise CannotMeasureError(f"the server does not start under libfaketime: {last}") from error
        yield running, shift


def clock_forward(shift: Path, seen: Traffic) -> Fault:
    return _moved(shift, seen, _HOUR_S)


def clock_back(shift: Path, seen: Traffic) -> Fault:
    return _moved(shift, seen, -_HOUR_S)


def _moved(shift: Path, seen: Traffic, seconds: int) -> Fault:
    """The clock jumps, and is watched for a while; it stays there until the next fault."""
    began = time.monotonic()
    shift.write_text(f"{seconds:+d}\n")
    time.sleep(_AFTER_S)
    fault = taken_again(seen, f"by {seconds:+d} s")
    return fault._replace(since=began)
