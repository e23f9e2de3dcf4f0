"""What is no fault and must not look like one: a promotion, a rollback, and a rolling restart."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from loadtests.faults.clients import Traffic, post
from loadtests.faults.measurement import Fault
from loadtests.faults.processes import OPERATIONS, admin_socket, serving
from loadtests.faults.server import RAYLET, REPLICA, CannotMeasureError, Server, command_line
from loadtests.texts import ROOT

_VERSION = "77"
_DEPLOY_S = 120
_OF_A_WORKER = ("RAY_RAYLET_PID", "RAY_JOB_ID", "RAY_CLIENT_MODE", "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR")
# What the server itself does at its start, in a process of its own that has joined its Ray.
_DEPLOY = """
import sys
from pathlib import Path
import ray
from ray import serve
from serve.config import load_config
from serve.rayserve.applications import task_target
ray.init(address=sys.argv[1], namespace="serve", log_to_driver=False, logging_level="ERROR")
config = load_config()
config = config.model_copy(update={"home": config.home.resolve()})
serve.run_many([task_target(config, "intent", Path(sys.argv[2]))])
"""


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
    """The task is deployed again, as on a change of its code: Ray Serve replaces one replica after another."""
    old, admin = set(server.pids(REPLICA)), admin_socket(server)
    environment = _environment(min(old))
    gcs = next(part for part in command_line(server.one(RAYLET)) if part.startswith("--gcs-address="))
    command = [sys.executable, "-c", _DEPLOY, gcs.partition("=")[2], environment["HAPROXY_REPORTS"]]
    since = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_DEPLOY_S)
    if done.returncode:
        raise RuntimeError(f"the task could not be deployed again: {done.stderr.strip()[-300:]}")
    took = time.monotonic() - since
    return Fault(
        since,
        lambda: not old & set(server.pids(REPLICA)) and serving(admin) >= len(old),
        f"{len(old)} replicas replaced in {took:.0f} s",
    )


def _environment(pid: int) -> dict[str, str]:
    """The environment of a process, as a client of its Ray needs it: without what is a worker's own."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    named = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {name: value for name, value in named.items() if name not in _OF_A_WORKER}
