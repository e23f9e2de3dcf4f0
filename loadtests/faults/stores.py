"""The store's server, a real PostgreSQL: killed, and frozen, each for a minute."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loadtests.faults.bounds import STORE_AWAY_S
from loadtests.faults.clients import Traffic
from loadtests.faults.measurement import Fault
from loadtests.faults.server import CannotMeasureError, Server, server
from tests.helpers.postgres import PostgresMissing, PostgresServer, postgres_server


@contextmanager
def on_postgres(folder: Path) -> Iterator[tuple[Server, PostgresServer]]:
    """A server whose store is PostgreSQL. Raises CannotMeasureError where there is none."""
    try:
        with postgres_server() as postgres, server(folder, store=postgres.new_database()) as running:
            yield running, postgres
    except PostgresMissing as missing:
        raise CannotMeasureError(str(missing)) from missing


def store_killed(postgres: PostgresServer, seen: Traffic) -> Fault:
    """SIGKILL to the server and all its backends; a minute later it is started again, and recovers from its log."""
    postgres.stop(signal.SIGKILL)
    time.sleep(STORE_AWAY_S)
    for _ in range(20):  # the processes of the one that was killed end by themselves
        with suppress(AssertionError):
            postgres.start()
            break
        time.sleep(0.5)
    return taken_again(seen, f"away for {STORE_AWAY_S:g} s")


def store_frozen(postgres: PostgresServer, seen: Traffic) -> Fault:
    """SIGSTOP to the server and all its backends for a minute: connections stay open, and nothing answers."""
    postgres.pause()
    try:
        time.sleep(STORE_AWAY_S)
    finally:
        postgres.resume()
    return taken_again(seen, f"frozen for {STORE_AWAY_S:g} s")


def taken_again(seen: Traffic, note: str) -> Fault:
    """The fault has just ended; whole when a correction that is sent after that is accepted."""
    since = time.monotonic()
    return Fault(since, lambda: any(a.sent > since and a.status == 202 for a in list(seen.feedback)), note)
