"""Shared by the scenarios: a server on its own home, clients that send requests continuously, a table of bounds."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.servers import START_TIMEOUT_S, STOP_TIMEOUT_S, free_port, home
from loadtests.texts import ROOT

Body = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A figure and its bound; `sign` is `>=` or `<=`."""

    what: str
    value: float
    sign: str
    bound: float

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.sign == ">=" else self.value <= self.bound


def show(rows: Sequence[Row]) -> int:
    """Print the table. Returns the exit code: 1 when a bound is missed."""
    print(f"\n{'':8}{'what':74}{'value':>10}{'bound':>12}")
    for row in rows:
        value, bound = (f"{n:,.0f}" if float(n).is_integer() else f"{n:,.4g}" for n in (row.value, row.bound))
        print(f"{'met' if row.met else 'MISSED':8}{row.what:74}{value:>10}{row.sign:>4}{bound:>8}")
    return 0 if all(row.met for row in rows) else 1


class Client:
    """One connection, reopened when it broke. `ask` returns (status, answer); status 0 is a broken connection."""

    def __init__(self, port: int, timeout: float = 60.0):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def ask(self, path: str, body: Body | None = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        content = None if body is None else json.dumps(body)
        given = {"content-type": "application/json", **(headers or {})}
        try:
            self._connection.request("GET" if body is None else "POST", path, content, given)
            response = self._connection.getresponse()
            raw = response.read()
            return response.status, json.loads(raw) if raw else None
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()
            return 0, None

    def must(self, path: str, body: Body | None = None, headers: dict[str, str] | None = None) -> Any:
        """The answer of a request that must succeed; otherwise exits with the server's error."""
        status, answer = self.ask(path, body, headers)
        if not 200 <= status < 300:
            sys.exit(f"{path}: {status}: {answer}")
        return answer


@dataclass
class Flywheel:
    """A `flywheel up` of this clone on the home `home`."""

    home: Path
    port: int
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        command = [str(Path(sys.executable).parent / "flywheel"), "up", "--port", str(self.port)]
        environment = {**os.environ, "FLYWHEEL_HOME": str(self.home), **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + START_TIMEOUT_S
        while self.client().ask("/v2/health/ready")[0] != 200:
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"the server did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.5)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def client(self) -> Client:
        return Client(self.port)


def serving_intent(home: Path, *, new_labels: bool = False, **environment: str) -> AbstractContextManager[Flywheel]:
    """Run a server with the intent task alone until the block ends. `environment` overrides the configuration."""
    return serving(home, {"tasks": {"intent": {"new_labels": new_labels}}}, **environment)


@contextmanager
def serving(home: Path, settings: Body, **environment: str) -> Iterator[Flywheel]:
    """Run a server with this configuration until the block ends. `environment` overrides it."""
    configuration = home / "flywheel.yaml"  # a file, because environment variables cannot remove a task
    configuration.write_text(json.dumps(settings), encoding="utf-8")
    server = Flywheel(home, free_port(), home / "server.log", {"FLYWHEEL_CONFIG": str(configuration), **environment})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def copy_of_models(to: Path) -> Path:
    """A new home at `to` with the trained models alone. Exits when there are none yet."""
    if not (home() / "releases" / "intent.json").is_file():
        sys.exit("There are no models yet. Run: make serve (it trains them).")
    for part in ("releases", "bundles"):
        shutil.copytree(home() / part, to / part)
    return to


class Traffic:
    """`connections` clients that send requests until the block ends, `pause_s` apart; counts statuses and versions."""

    def __init__(
        self,
        server: Flywheel,
        path: str,
        request: Callable[[int], tuple[Body, dict[str, str]]],
        connections: int,
        pause_s: float = 0.0,
    ):
        self._server, self._path, self._request, self._pause_s = server, path, request, pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(connections)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)

    def _ask(self) -> None:
        client = self._server.client()
        while not self._stop.is_set():
            with self._lock:
                number = self._number
                self._number += 1
            status, answer = client.ask(self._path, *self._request(number))
            with self._lock:
                self.statuses[status] += 1
                if status == 200:
                    self.versions[answer["model_version"]] += 1
            self._stop.wait(self._pause_s)


def eventually(condition: Callable[[], bool], seconds: float, every: float = 0.25) -> float:
    """Seconds until `condition` is true; infinite when it is not within `seconds`."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        time.sleep(every)
    return float("inf")


def files_with(needles: Sequence[str], folders: Sequence[Path]) -> dict[str, list[str]]:
    """Each of `needles` that is found, with the files below `folders` that contain it."""
    raw = {needle: needle.encode() for needle in needles}
    found: dict[str, list[str]] = {}
    for file in (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        try:
            content = file.read_bytes()
        except OSError:
            continue
        for needle, wanted in raw.items():
            if wanted in content:
                found.setdefault(needle, []).append(str(file))
    return found
