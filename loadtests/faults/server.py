"""The server that faults are put into: `flywheel up` on a copy of the home, its processes by name, and its store."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.faults.bounds import DEADLINE_S
from loadtests.servers import COMMAND, copied, descendants, free_port, home
from loadtests.texts import ROOT

REPLICA, HAPROXY, MANAGER = "ServeReplica:intent", "haproxy -db", "ray::HAProxyManager"
CONTROLLER, RAYLET, RETRAINING = "ray::ServeController", "raylet/raylet", "ray::_retrain"
_OF_RETRAINING = ("checkpoints/intent", "corpora")
_START_S, _STOP_S = 180, 60
_CONFIG = f"""
tasks: {{intent: {{replicas: 2}}}}
learning: {{automatic: false}}
limits: {{deadline_s: {DEADLINE_S:g}, texts: 4096, body_bytes: 8388608}}
"""


class CannotMeasureError(Exception):
    """Raised when a fault cannot be put in on this machine; the text says why."""


class RunError(Exception):
    """Raised when nothing more can be measured: the server does not start, or fails before a fault; says why."""


@dataclass
class Server:
    """A running server. `store` is its database's URL, None for SQLite in the home."""

    url: str
    process: subprocess.Popen[bytes]
    home: Path
    store: str | None = None
    restart: Callable[[], None] = field(default=lambda: None)

    def pids(self, name: str) -> list[int]:
        """The server's processes whose command line has `name`."""
        return [pid for pid in descendants(self.process.pid) if _named(pid, name)]

    def one(self, name: str) -> int:
        """The newest of them. Raises CannotMeasureError when there is none."""
        found = self.pids(name)
        if not found:
            raise CannotMeasureError(f"the server has no process {name!r}")
        return max(found)

    def is_ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5) as response:
            return bool(response.status == 200)
        return False

    def settles(self) -> bool:
        """Whether the server is soon as it was at its start: ready, both replicas, HAProxy of a manager."""
        return eventually(lambda: self.is_ready() and len(self.pids(REPLICA)) == 2 and bool(self.pids(HAPROXY)), 60)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return json.load(response)

    def stored(self) -> set[str]:
        """The texts of all corrections in the store."""
        query = "SELECT text FROM feedback WHERE text IS NOT NULL"
        if self.store is None:
            with closing(
                sqlite3.connect(f"file:{self.home / 'feedback.db'}?mode=ro", uri=True, timeout=10)
            ) as database:
                return {text for (text,) in database.execute(query)}
        import psycopg

        with psycopg.connect(self.store, connect_timeout=10) as connection:
            return {text for (text,) in connection.execute(query)}


def command_line(pid: int) -> list[str]:
    """The arguments of a process; none when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


def _named(pid: int, name: str) -> bool:
    return name in " ".join(command_line(pid))


@contextmanager
def server(
    folder: Path,
    *,
    own_home: Path | None = None,
    store: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server that is ready, until the block ends; its log and configuration are in `folder`.

    It serves a copy of the user's home, or the home `own_home`. Raises RunError when it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "flywheel.yaml"
    config.write_text(_CONFIG + (f"feedback: {{store: '{store}'}}\n" if store else ""))
    port = free_port()
    with ExitStack() as stack:
        served = own_home or stack.enter_context(copied(home()))
        for part in () if own_home else _OF_RETRAINING:
            if (home() / part).is_dir():
                shutil.copytree(home() / part, served / part)
        variables = {**os.environ, "FLYWHEEL_CONFIG": str(config), "FLYWHEEL_HOME": str(served), **(environment or {})}
        log = stack.enter_context((folder / "log").open("ab"))

        def up() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [str(COMMAND), "up", "--port", str(port)],
                cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

        running = Server(f"http://127.0.0.1:{port}", up(), served, store)

        def restart() -> None:
            running.process = up()

        running.restart = restart
        try:
            if not eventually(lambda: running.process.poll() is not None or running.is_ready(), _START_S) or (
                running.process.poll() is not None
            ):
                raise RunError(f"the server did not start:\n{(folder / 'log').read_text()[-2000:]}")
            yield running
        finally:
            _stop(running.process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    family = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        for pid in reversed(family):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def replicas(pid: int) -> list[int]:
    """The processes under `pid` that serve intent."""
    return [one for one in descendants(pid) if _named(one, REPLICA)]


def eventually(condition: Callable[[], bool], seconds: float, every_s: float = 0.2) -> bool:
    """Whether `condition` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
