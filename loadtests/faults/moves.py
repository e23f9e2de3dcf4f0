"""What is no fault and must not look like one: a promotion, a rollback, and replicas that are restarted in turn."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable

from loadtests.faults.clients import Traffic, post
from loadtests.faults.measurement import Fault
from loadtests.faults.processes import OPERATIONS, ended_replica
from loadtests.faults.server import REPLICA, CannotMeasureError, Server, eventually

_VERSION = "77"


def promotion(server: Server, seen: Traffic) -> Fault:
    """Another version becomes the champion: a copy of the one that is, so that answers stay the same."""
    path = server.home / "releases" / "intent.json"
    release = json.loads(path.read_text())
    bundles = server.home / "bundles" / "intent"
    if not (bundles / _VERSION).exists():
        shutil.copytree(bundles / release["champion"], bundles / _VERSION)
    release["versions"][_VERSION] = f"bundles/intent/{_VERSION}"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(release))
    new.replace(path)
    return _moved(server, "promote", {"version": _VERSION}, lambda champion: champion == _VERSION)


def rollback(server: Server, seen: Traffic) -> Fault:
    return _moved(server, "rollback", {}, lambda champion: champion != _VERSION)


def _moved(server: Server, move: str, body: dict[str, str], done: Callable[[str], bool]) -> Fault:
    since = time.monotonic()
    status = post(f"{server.url}{OPERATIONS}/{move}", {"actor": "faults", "reason": "faults", **body})
    if status != 200:
        raise CannotMeasureError(f"{move} was answered {status}")

    def whole() -> bool:
        details = server.get("/v2/models/intent")["version_details"]
        return any(entry["alias"] == "champion" and done(entry["version"]) for entry in details)

    return Fault(since, whole)


def rolling_restart(server: Server, seen: Traffic) -> Fault:
    """SIGTERM to each replica, when the one before it has been replaced."""
    since = time.monotonic()
    old = server.pids(REPLICA)
    for victim in old:
        fault = ended_replica(server, signal.SIGTERM, victim)
        if not eventually(fault.whole, 60):
            return Fault(since, lambda: False, f"a replica of {len(old)} was not replaced within 60 s")
    return Fault(since, lambda: True, f"{len(old)} replicas")
