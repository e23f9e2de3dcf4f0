"""A disk that is full, hangs, or is gone: predictions do not notice, corrections are refused until it is back.

The home is on one disk and Ray's logs on another, as Ray itself hangs with the disk of its logs. Both are
filled at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.helpers.disks import Disk, limited_files, own_disk, own_memory
from tests.helpers.server import GOOD, Server, children, replicas, start_server, stop_server
from tests.helpers.waiting import eventually

PREDICT, FEEDBACK = "/v2/models/intent/predict", "/v2/models/intent/feedback"
CORRECTION = {"text": "I want my money back", "label": "get_refund", "consent": True}
RIGHT_AGAIN_S = 10
CONFIG = "tasks:\n  intent: {replicas: 2}\nlearning: {automatic: false}\n"


@dataclass
class OnDisk:
    """A server whose home is on `disk`, and its temporary files on `logs`; without them a full disk is imitated."""

    server: Server
    disk: Disk | None
    logs: Disk | None

    @contextmanager
    def full(self) -> Iterator[None]:
        if self.disk is not None and self.logs is not None:
            self.disk.fill()
            self.logs.fill()
            try:
                yield
            finally:
                self.disk.make_room()
                self.logs.make_room()
        else:
            size = (self.server.home / "feedback.db").stat().st_size
            with limited_files(lambda: children(self.server.process.pid, "ServeReplica"), size):
                yield

    def needed(self) -> Disk:
        if self.disk is None or self.logs is None:
            pytest.skip("needs a disk of its own, which this machine does not let us mount")
        return self.disk


@pytest.fixture(scope="module")
def on_disk(trained_home: Path) -> Iterator[OnDisk]:
    with ExitStack() as stack:
        # A short path, for Ray's sockets.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fw-", ignore_cleanup_errors=True)))
        disk = stack.enter_context(own_disk(folder, 400))
        logs = stack.enter_context(own_memory(folder / "t", 100))
        home = folder / "disk" / "home"
        shutil.copytree(trained_home / "releases", home / "releases")
        shutil.copytree(trained_home / "bundles" / "intent", home / "bundles" / "intent")
        (folder / "flywheel.yaml").write_text(CONFIG)
        environment = {"FLYWHEEL_CONFIG": str(folder / "flywheel.yaml"), "TMPDIR": str(folder / "t")}
        server = start_server(home, folder / "t" / "log", **environment)
        on_disk = OnDisk(server, disk, logs)
        try:
            yield on_disk
        finally:
            with on_disk.full():  # it drains, though it cannot say so
                assert stop_server(server) == 0


@dataclass
class Traffic:
    """Predictions by three clients; every answer but 200 is in `failed`."""

    server: Server
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def predict(self, name: int) -> None:
        with httpx.Client(base_url=self.server.url, timeout=30) as client:
            while not self._stop.is_set():
                body = {"text": f"where is order {name}{self.answered}?"}
                try:
                    response = client.post(PREDICT, json=body)
                    if response.status_code != 200:
                        self.failed.append(f"{response.status_code} {response.text}")
                except httpx.TransportError as error:
                    self.failed.append(repr(error))
                self.answered += 1
                time.sleep(0.01)


@contextmanager
def traffic(server: Server) -> Iterator[Traffic]:
    """None of its predictions may fail."""
    running = Traffic(server)
    clients = [threading.Thread(target=running.predict, args=(name,)) for name in range(3)]
    for client in clients:
        client.start()
    try:
        yield running
    finally:
        running._stop.set()
        for client in clients:
            client.join()
    assert running.answered
    assert running.failed == []


def is_taken(server: Server) -> bool:
    return server.post(FEEDBACK, json=CORRECTION).status_code == 202


def is_refused(server: Server) -> bool:
    response = server.post(FEEDBACK, json={**CORRECTION, "text": "x" * 3000 + str(time.monotonic())})
    if response.status_code == 202:  # there was room in the file yet
        return False
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) > 0
    return True


def test_a_full_disk(on_disk: OnDisk) -> None:
    server = on_disk.server
    assert is_taken(server)
    with traffic(server):
        with on_disk.full():
            eventually(lambda: all(is_refused(server) for _ in range(6)), 20)
            assert server.get("/metrics").status_code == 200
            time.sleep(2)
        eventually(lambda: is_taken(server), RIGHT_AGAIN_S)
    assert "flywheel_requests_total" in server.get("/metrics").text


def kill_one(server: Server, name: str) -> None:
    """Kill one of these processes, and wait for the one that replaces it."""
    before = children(server.process.pid, name)
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(set(children(server.process.pid, name)) - {before[0]}) == len(before), 30)


@pytest.mark.needs_tweak("haproxy", "log_disk")
def test_processes_that_end_on_a_full_disk_are_replaced(on_disk: OnDisk) -> None:
    on_disk.needed()
    server = on_disk.server
    with traffic(server), on_disk.full():
        for name in ("ServeReplica:intent", "ServeReplica:control"):
            kill_one(server, name)
        eventually(lambda: httpx.get(f"{server.url}/v2/health/ready", timeout=30).status_code == 200, 30)
    eventually(lambda: is_taken(server), RIGHT_AGAIN_S)
    assert len(replicas(server)) == 2


def test_a_disk_that_hangs(on_disk: OnDisk) -> None:
    disk, server = on_disk.needed(), on_disk.server
    with traffic(server):
        disk.freeze()
        try:
            assert is_refused(server)
            assert is_refused(server)
            assert server.get("/metrics").elapsed.total_seconds() < 5
        finally:
            disk.thaw()
        eventually(lambda: is_taken(server), RIGHT_AGAIN_S)


def test_a_disk_that_is_gone(on_disk: OnDisk) -> None:
    disk, server = on_disk.needed(), on_disk.server
    with traffic(server):
        disk.take_away()
        try:
            time.sleep(3)
            assert server.post(PREDICT, json=GOOD).status_code == 200
            assert server.post(FEEDBACK, json=CORRECTION).status_code in (202, 503)
        finally:
            disk.mount()
        eventually(lambda: is_taken(server), RIGHT_AGAIN_S)
