"""All faults in the order in which they are run, in groups that share a server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.faults import clocks, disks, limits, misbehaving, moves, processes, stores
from loadtests.faults.bounds import BOUNDS
from loadtests.faults.clients import Traffic
from loadtests.faults.measurement import Fault, Measurement, measure
from loadtests.faults.page import Run
from loadtests.faults.server import CannotMeasureError, RunError, Server, server

PutIn = Callable[[Traffic], Fault]
CLIENTS = "misbehaving-clients"


@dataclass(frozen=True)
class Group:
    """Faults that share a server, for as long as each leaves it whole."""

    name: str
    names: Sequence[str]
    started: Callable[[Path], AbstractContextManager[tuple[Server, dict[str, PutIn]]]]
    """runs the server in a folder; yields it, and how each fault is put in"""


@contextmanager
def _plain(folder: Path) -> Iterator[tuple[Server, dict[str, PutIn]]]:
    with server(folder) as running:
        yield running, {name: _bound(put_in, running) for name, put_in in PLAIN.items()}


@contextmanager
def _postgres(folder: Path) -> Iterator[tuple[Server, dict[str, PutIn]]]:
    with stores.on_postgres(folder) as (running, postgres):
        yield (
            running,
            {
                "store-killed": lambda seen: stores.store_killed(postgres, seen),
                "store-frozen": lambda seen: stores.store_frozen(postgres, seen),
            },
        )


@contextmanager
def _disk(folder: Path) -> Iterator[tuple[Server, dict[str, PutIn]]]:
    with disks.on_disk() as (running, disk):
        yield (
            running,
            {
                "disk-full": lambda seen: disks.disk_full(running, disk, seen),
                "disk-slow": lambda seen: disks.disk_slow(disk, seen),
            },
        )


@contextmanager
def _clock(folder: Path) -> Iterator[tuple[Server, dict[str, PutIn]]]:
    with clocks.on_own_clock(folder) as (running, shift):
        yield (
            running,
            {
                "clock-forward": lambda seen: clocks.clock_forward(shift, seen),
                "clock-back": lambda seen: clocks.clock_back(shift, seen),
            },
        )


def _bound(put_in: Callable[[Server, Traffic], Fault], running: Server) -> PutIn:
    return lambda seen: put_in(running, seen)


PLAIN: dict[str, Callable[[Server, Traffic], Fault]] = {
    "replica-killed": processes.replica_killed,
    "replica-frozen": processes.replica_frozen,
    "haproxy-killed": processes.haproxy_killed,
    "manager-killed": processes.manager_killed,
    "controller-killed": processes.controller_killed,
    "promotion": moves.promotion,
    "rollback": moves.rollback,
    "rolling-restart": moves.rolling_restart,
    "retraining-killed": processes.retraining_killed,
    "descriptors": limits.descriptors,
    "memory": limits.memory,
    "raylet-killed": processes.raylet_killed,
}
GROUPS = (
    Group("processes", (*PLAIN, CLIENTS), _plain),
    Group("store", ("store-killed", "store-frozen"), _postgres),
    Group("disk", ("disk-full", "disk-slow"), _disk),
    Group("clock", ("clock-forward", "clock-back"), _clock),
)
NAMES = tuple(name for group in GROUPS for name in group.names)


def run_group(group: Group, wanted: Sequence[str], folder: Path, run: Run) -> None:
    """Measure the faults `wanted`, one after another. One that leaves the server broken is followed by a new server."""
    left, turn = list(wanted), 0
    while left:
        turn += 1
        say(f"{group.name}: starting a server, about 20 s")
        try:
            with group.started(folder / str(turn)) as (running, faults):
                while left:
                    name = left.pop(0)
                    if not _measured(name, running, faults.get(name), run):
                        break
        except CannotMeasureError as reason:
            for name in left:
                run.not_measured[name] = str(reason)
                say(f"{name}: not measured: {reason}")
            return
        except RunError as reason:
            for name in left:
                run.broken[name] = str(reason)
                say(f"{name}: {reason}")
            return


def _measured(name: str, running: Server, put_in: PutIn | None, run: Run) -> bool:
    """Measure one fault. Returns whether the server can be used for another."""
    say(f"{name} ...")
    if put_in is None:
        run.checks = misbehaving.checks_of(running.url)
        return True
    try:
        found = measure(name, BOUNDS[name], running, put_in)
    except CannotMeasureError as reason:
        run.not_measured[name] = str(reason)
        say(f"{name}: not measured: {reason}")
        return running.is_ready()
    except Exception as error:  # whatever failed, the other faults are measured
        run.broken[name] = f"{type(error).__name__}: {error}"
        say(f"{name}: {run.broken[name]}")
        return False
    run.measured.append(found)
    say(told(found))
    return found.normal_s is not None and running.settles()


def told(found: Measurement) -> str:
    normal = "too long" if found.normal_s is None else f"{found.normal_s:.1f} s"
    line = (
        f"{found.name}: {'MISSED' if found.missed else 'met'}; {found.predicts} predicts, {found.failed} failed in "
        f"{found.failing_s:.1f} s {found.statuses}, longest {found.longest_s:.2f} s, normal after {normal}, "
        f"corrections {found.feedback}, lost {found.lost}. {found.note}"
    )
    return "\n    ".join([line, *found.missed])


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
