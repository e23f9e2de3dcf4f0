"""The guard of HAProxy, around a real HAProxy: what it does when that, its manager or the raylet is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from serve.rayserve import haproxy_guard
from serve.rayserve.environment import has_haproxy
from serve.rayserve.haproxy import binary, take_over
from serve.rayserve.haproxy_guard import Guard, Guarded, has_applications, kept, pid_at
from tests.helpers.command import free_port
from tests.helpers.good_replica import GoodReplica
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.skipif(not has_haproxy(), reason="Ray brings no HAProxy for this system")

CONFIGURATION = """global
    stats socket {admin} mode 600 level admin expose-fd listeners
    hard-stop-after 2s
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend http_frontend
    bind 127.0.0.1:{port}
{routes}    default_backend none
backend none
    http-request return status 503
backend task
    server replica 127.0.0.1:{backend}
"""


class Run:
    """HAProxy before one replica, with processes in the places of its manager and of the raylet."""

    def __init__(self, folder: Path, stack: ExitStack):
        self._stack = stack
        self.admin, self.port = str(folder / "admin.sock"), free_port()
        self.path = str(folder / "haproxy.cfg")
        replica = ThreadingHTTPServer(("127.0.0.1", 0), GoodReplica)
        stack.callback(replica.server_close)
        stack.callback(replica.shutdown)
        threading.Thread(target=replica.serve_forever, daemon=True).start()
        self._backend = replica.server_address[1]
        self.write("    use_backend task\n")
        Path(kept(self.path)).write_text(Path(self.path).read_text())
        self.manager, self.raylet = self.start("sleep", "600"), self.start("sleep", "600")
        self.haproxy = self.start(binary(), "-db", "-f", self.path, "-dR")
        eventually(lambda: pid_at(self.admin) == self.haproxy.pid, 5)
        it = Guarded(self.haproxy.pid, self.manager.pid, self.raylet.pid, binary(), kept(self.path), self.admin)
        self.guard = threading.Thread(target=Guard(it).run, daemon=True)
        self.guard.start()
        time.sleep(0.3)  # it has seen HAProxy answer

    def write(self, routes: str) -> None:
        Path(self.path).write_text(
            CONFIGURATION.format(admin=self.admin, port=self.port, backend=self._backend, routes=routes)
        )

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def end() -> None:
            process.kill()
            process.wait()

        self._stack.callback(end)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with ExitStack() as stack:
        run = Run(tmp_path, stack)
        assert run.answers()
        try:
            yield run
        finally:
            run.kill(run.raylet)
            run.guard.join(5)
            if pid := pid_at(run.admin):  # a guard that failed
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_haproxy_that_is_killed_is_started_again_at_once_and_its_manager_replaced(run: Run) -> None:
    run.kill(run.haproxy)
    began = time.monotonic()
    eventually(run.answers, 3)
    assert time.monotonic() - began < 3
    assert pid_at(run.admin) not in (None, run.haproxy.pid)
    assert run.manager.wait(5) == -signal.SIGKILL  # Serve starts another


def test_again_when_that_one_is_killed_too(run: Run) -> None:
    for _ in range(3):
        victim = pid_at(run.admin)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        eventually(lambda victim=victim: pid_at(run.admin) not in (None, victim) and run.answers(), 5)


def test_haproxy_serves_on_when_its_manager_is_killed_and_the_next_one_takes_over(run: Run) -> None:
    run.kill(run.manager)
    assert run.answers()
    failed: list[bool] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            if not run.answers():
                failed.append(True)

    client = threading.Thread(target=ask)
    client.start()
    run.write("")  # the next manager knows no application yet
    arguments = take_over(run.path, ["-db", "-f", run.path, "-dR"], run.admin)
    assert arguments[4:] == ["-sf", str(run.haproxy.pid), "-x", run.admin]
    assert has_applications(run.path)
    successor = run.start(binary(), *arguments)
    try:
        eventually(lambda: pid_at(run.admin) == successor.pid, 5)
        assert run.haproxy.wait(10) == 0  # it has drained
    finally:
        stop.set()
        client.join()
    assert failed == []
    run.guard.join(5)
    assert not run.guard.is_alive()
    assert run.answers()
    run.kill(successor)


def test_a_reload_takes_over_by_itself(run: Run) -> None:
    arguments = ["-db", "-f", run.path, "-dR", "-sf", "1"]
    assert take_over(run.path, arguments, run.admin) == arguments


def test_without_a_predecessor_nothing_is_taken_over(tmp_path: Path) -> None:
    arguments = ["-db", "-f", "x"]
    assert take_over("x", arguments, str(tmp_path / "admin.sock")) == arguments


def test_haproxy_ends_with_the_raylet(run: Run) -> None:
    run.kill(run.raylet)
    run.haproxy.wait(5)
    run.guard.join(5)
    assert not run.listens()


def test_haproxy_without_a_manager_ends_after_a_while(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy_guard, "ALONE_S", 0.5)
    run.kill(run.manager)
    run.haproxy.wait(5)
    run.guard.join(5)
    assert not run.listens()


def test_haproxy_of_a_server_that_ends_is_not_started_again(run: Run) -> None:
    run.write("")
    os.replace(run.path, kept(run.path))  # its applications are deleted before HAProxy is killed
    run.kill(run.haproxy)
    run.guard.join(5)
    assert not run.guard.is_alive()
    assert not run.listens()
    assert run.manager.poll() is None


def test_haproxy_that_never_answered_is_its_managers_affair(tmp_path: Path) -> None:
    with ExitStack() as stack:
        run = Run(tmp_path, stack)
        broken = run.start("sleep", "600")
        it = Guarded(broken.pid, run.manager.pid, run.raylet.pid, binary(), kept(run.path), str(tmp_path / "none"))
        guard = threading.Thread(target=Guard(it).run, daemon=True)
        guard.start()
        run.kill(broken)
        guard.join(5)
        assert not guard.is_alive()
        assert run.manager.poll() is None
        run.kill(run.raylet)
        run.guard.join(5)


def test_haproxy_ends_with_its_guard(tmp_path: Path) -> None:
    file, lua = tmp_path / "haproxy.cfg", Path(haproxy_guard.__file__).with_name("guarded.lua")
    configuration = CONFIGURATION.format(admin=tmp_path / "admin", port=free_port(), routes="", backend=free_port())
    file.write_text(configuration.replace("global\n", f"global\n    lua-load {lua}\n"))
    with ExitStack() as stack:
        guard = stack.enter_context(subprocess.Popen(["sleep", "60"]))
        stack.callback(guard.kill)
        environment = {**os.environ, haproxy_guard.GUARD: str(guard.pid)}
        process = stack.enter_context(subprocess.Popen([binary(), "-db", "-f", file], env=environment))
        stack.callback(process.kill)
        eventually(lambda: pid_at(str(tmp_path / "admin")) == process.pid, 5)
        time.sleep(1.2)
        assert process.poll() is None
        guard.kill()  # it stays a zombie until it is waited for
        assert process.wait(5) == 1
