"""What a real HAProxy answers itself is counted, by task and reason, over its reloads."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from serve.metrics.haproxy import UNANSWERED, UnansweredRequests, parsed
from serve.rayserve.environment import has_haproxy
from serve.rayserve.haproxy import binary
from serve.rayserve.haproxy_guard import pid_at
from tests.helpers.command import free_port
from tests.helpers.good_replica import GoodReplica
from tests.helpers.waiting import eventually

CONFIGURATION = """global
    stats socket {admin} mode 600 level admin expose-fd listeners
defaults
    mode http
    retries 0
    timeout connect 1s
    timeout client 5s
    timeout server 300ms
frontend http_frontend
    bind 127.0.0.1:{port}
    use_backend http-answers if {{ path /answers }}
    use_backend http-gone if {{ path /gone }}
    use_backend http-ends if {{ path /ends }}
    use_backend http-frozen if {{ path /frozen }}
    use_backend http-refuses if {{ path /refuses }}
backend http-answers
    server replica 127.0.0.1:{answers}
backend http-gone
    server replica 127.0.0.1:{gone}
backend http-ends
    server replica 127.0.0.1:{ends}
backend http-frozen
    server replica 127.0.0.1:{frozen}
backend http-refuses
    http-request return status 503
    server replica 127.0.0.1:{answers}
"""
TASKS = ("answers", "gone", "ends", "frozen", "refuses")


class Run:
    """HAProxy before a replica that answers, one that is gone, one that ends each connection, and a frozen one."""

    def __init__(self, folder: Path, stack: ExitStack):
        self._stack, self.admin, self.port = stack, folder / "admin.sock", free_port()
        replica = ThreadingHTTPServer(("127.0.0.1", 0), GoodReplica)
        stack.callback(replica.server_close)
        stack.callback(replica.shutdown)
        threading.Thread(target=replica.serve_forever, daemon=True).start()
        frozen = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        ends = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        threading.Thread(target=end_connections, args=(ends,), daemon=True).start()
        ports = {"answers": replica, "ends": ends, "frozen": frozen}
        self._path = folder / "haproxy.cfg"
        self._path.write_text(
            CONFIGURATION.format(
                admin=self.admin,
                port=self.port,
                gone=free_port(),
                **{
                    name: (one.server_address if isinstance(one, ThreadingHTTPServer) else one.getsockname())[1]
                    for name, one in ports.items()
                },
            )
        )
        self._process = self._start()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([binary(), "-db", "-f", str(self._path), *arguments])
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        eventually(lambda: pid_at(str(self.admin)) == process.pid, 5)
        return process

    def reload(self) -> None:
        self._process = self._start("-sf", str(self._process.pid), "-x", str(self.admin))

    def ask(self, task: str) -> int:
        return httpx.get(f"http://127.0.0.1:{self.port}/{task}", timeout=5).status_code


def end_connections(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.recv(1 << 16)
        connection.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    if not has_haproxy():
        pytest.skip("Ray brings no HAProxy for this system")
    with ExitStack() as stack:
        yield Run(tmp_path, stack)


def counts(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """The counts that are not 0."""
    samples = next(iter(registry.collect())).samples
    assert {sample.name for sample in samples} == {UNANSWERED.name}
    assert {sample.labels["task"] for sample in samples} == {*TASKS}
    return {(sample.labels["task"], sample.labels["reason"]): sample.value for sample in samples if sample.value}


def test_haproxys_own_errors_are_counted_and_no_others(run: Run) -> None:
    registry = CollectorRegistry()
    UnansweredRequests(run.admin, TASKS, registry)
    assert counts(registry) == {}
    assert [run.ask(task) for task in TASKS] == [200, 503, 502, 504, 503]
    assert run.ask("gone") == 503
    assert counts(registry) == {("gone", "no_replica"): 2, ("ends", "no_answer"): 1, ("frozen", "no_answer"): 1}


def test_counts_go_on_after_a_reload(run: Run) -> None:
    registry = CollectorRegistry()
    unanswered = UnansweredRequests(run.admin, TASKS, registry)
    unanswered.count()
    run.ask("gone")
    unanswered.count()
    run.reload()
    assert counts(registry) == {("gone", "no_replica"): 1}
    run.ask("gone")
    run.ask("ends")
    assert counts(registry) == {("gone", "no_replica"): 2, ("ends", "no_answer"): 1}


def test_a_control_application_that_was_replaced_does_not_count_them_again(run: Run) -> None:
    run.ask("gone")
    registry = CollectorRegistry()
    UnansweredRequests(run.admin, TASKS, registry)
    assert counts(registry) == {}
    run.ask("gone")
    assert counts(registry) == {("gone", "no_replica"): 1}


@pytest.mark.parametrize("is_there", [False, True])
def test_without_haproxys_answer_nothing_is_counted(tmp_path: Path, is_there: bool) -> None:
    """No HAProxy, as with Serve's own proxy; and one that is frozen, so that a scrape is late by half a second."""
    with socket.socket(socket.AF_UNIX) as listener:
        if is_there:
            listener.bind(str(tmp_path / "admin.sock"))
            listener.listen()
        registry = CollectorRegistry()
        UnansweredRequests(tmp_path / "admin.sock", TASKS, registry)
        assert counts(registry) == {}
    registry = CollectorRegistry()
    UnansweredRequests(None, TASKS, registry)
    assert counts(registry) == {}


@pytest.mark.parametrize("answer", ["", "Pid: 7\n", "# pxname,svname,econ,eresp,\nhttp-a,BACKEND,1,1,\n"])
def test_half_an_answer_is_none(answer: str) -> None:
    assert parsed(answer) is None
