"""A throw-away PostgreSQL server for tests: its own cluster in a temporary directory, on a free port of loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.helpers.command import free_port

_START_TIMEOUT_S = 60


class PostgresMissing(Exception):
    """Raised when this machine cannot run a server; says why."""


def binaries() -> Path:
    """Where `initdb` and `postgres` are: Debian keeps them out of PATH."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: float(path.parent.name))
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    raise PostgresMissing("no PostgreSQL server binaries (Debian: apt-get install postgresql)")


def _user() -> str | None:
    """Whom to run the server as: it refuses root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise PostgresMissing("PostgreSQL does not run as root, and there is no user postgres") from None


class PostgresServer:
    """One cluster; `start` and `stop` as often as a test likes."""

    def __init__(self, directory: Path):
        self._bin = binaries()
        self._directory = directory
        self._user = _user()
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        if self._user:
            shutil.chown(directory, self._user)
        made = self._run(
            "initdb", "-D", "data", "-U", "flywheel", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        if made.returncode:
            raise AssertionError(f"initdb failed:\n{made.stdout}{made.stderr}")

    def start(self) -> None:
        """Returns when the server accepts connections."""
        command = [str(self._bin / "postgres"), "-D", "data", "-h", "127.0.0.1", "-p", str(self._port), "-k", ""]
        command += ["-c", "fsync=off"]  # processes are killed here, machines are not
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._directory, user=self._user, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                psycopg.connect(self._dsn("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        self.stop()
        raise AssertionError(f"PostgreSQL did not start:\n{(self._directory / 'log').read_text()}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT cuts the connections and shuts down cleanly; SIGQUIT does not wait for the disk."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(how)
            self._process.wait(_START_TIMEOUT_S)
            self._process = None

    def pause(self) -> None:
        """Answer nothing until `resume`, as on a disk that hangs; connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        pids = subprocess.run(["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False)
        for pid in [self._process.pid, *map(int, pids.stdout.split())]:  # backends have sessions of their own
            os.kill(pid, number)

    def new_database(self) -> str:
        """An empty database; its URL."""
        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._dsn(name)

    def _dsn(self, database: str) -> str:
        return f"postgresql://flywheel@127.0.0.1:{self._port}/{database}"

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._bin / program, *arguments], cwd=self._directory, user=self._user, capture_output=True, text=True,
            timeout=_START_TIMEOUT_S, check=False,
        )  # fmt: skip


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server, stopped and removed at the end. Raises PostgresMissing."""
    # Not under pytest's own directory, which the server's user may not enter.
    directory = Path(tempfile.mkdtemp(prefix="flywheel-postgres-"))
    try:
        server = PostgresServer(directory)
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
