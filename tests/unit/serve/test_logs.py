"""A record is one line of JSON, says which request it is of, and quotes no exception; other processes' lines arrive."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve import logs
from serve.cli.terminal import err, out, print_as_log, print_error
from serve.config import LoggingConfig
from serve.request_context import RequestContext, current
from tests.helpers.waiting import eventually

JSON = LoggingConfig(format="json")
log = logging.getLogger("flywheel.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    logger = logging.getLogger(logs.ROOT)
    handlers, level, parent = logger.handlers[:], logger.level, logger.parent
    files = out._file, err._file, out._width, err._width
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.parent = handlers, parent
    logger.setLevel(level)
    out._file, err._file, out._width, err._width = files


class Stdout:
    """What was written to stdout so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self._capsys = capsys
        self._text = ""

    def text(self) -> str:
        self._text += self._capsys.readouterr().out
        return self._text


@pytest.fixture
def stdout(capsys: pytest.CaptureFixture[str]) -> Stdout:
    return Stdout(capsys)


def records(stdout: Stdout) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.text().splitlines()]


def test_a_record_says_when_where_and_of_which_request(stdout: Stdout) -> None:
    logs.log_to_stdout(JSON, "server")
    token = current.set(RequestContext("desk-42", "4bf92f3577b34da6a3ce929d0e0e4736", version="3"))
    log.warning("two\nlines of %s", "\ud800")
    current.reset(token)
    (record,) = records(stdout)
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "warning",
        "logger": "flywheel.test",
        "message": "two\nlines of \\ud800",
        "process": "server",
        "pid": os.getpid(),
        "request_id": "desk-42",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "version": "3",
    }


@pytest.mark.parametrize("format_", ["json", "text"])
def test_an_exception_is_logged_without_what_it_quotes(stdout: Stdout, format_: Any) -> None:
    logs.log_to_stdout(LoggingConfig(format=format_), "server")
    behind = io.StringIO()  # a handler of Ray Serve, after ours
    other = logging.StreamHandler(behind)
    logging.getLogger(logs.ROOT).parent = parent = logging.Logger("parent")
    parent.addHandler(other)
    text, path = "secret of alice", "/secret"
    try:
        try:
            int(text)
        except ValueError as error:
            raise OSError(errno.ENOSPC, "No space left on device", path) from error
    except OSError:
        log.exception("a step failed")
    for said in (stdout.text(), behind.getvalue()):
        assert text not in said
        assert path not in said
        assert "OSError: No space left on device" in said
        assert "ValueError" in said
        assert Path(__file__).name in said


def test_a_process_of_ray_sends_its_records_to_the_server(
    stdout: Stdout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    monkeypatch.setenv(logs.SOCKET_VARIABLE, str(path))
    with logs.received_logs(path):
        logs.log_to_server(JSON, "intent", "intent")
        for number in range(500):
            log.warning("record %d %s", number, "x" * 500)
        eventually(lambda: len(stdout.text().splitlines()) == 500, 10)
    found = records(stdout)
    assert [record["message"].split()[1] for record in found] == [str(number) for number in range(500)]
    assert {(record["process"], record["task"]) for record in found} == {("intent", "intent")}


def test_many_processes_that_begin_at_once_lose_no_record(
    stdout: Stdout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, processes = tmp_path / "log", 64
    monkeypatch.setenv(logs.SOCKET_VARIABLE, str(path))
    serve_forever = logs._Receiver.serve_forever
    begun = threading.Event()

    def serve_late(self: logs._Receiver) -> None:
        begun.wait(10)
        serve_forever(self)

    monkeypatch.setattr(logs._Receiver, "serve_forever", serve_late)
    with logs.received_logs(path):
        for number in range(processes):
            logs.log_to_server(JSON, f"process {number}")
            log.warning("begun")
        begun.set()
        eventually(lambda: len(stdout.text().splitlines()) == processes, 10)


def test_a_server_that_does_not_read_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    monkeypatch.setenv(logs.SOCKET_VARIABLE, str(path))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        logs.log_to_server(JSON, "intent")
        started = time.monotonic()
        for _ in range(1000):
            log.warning("%s", "x" * 1000)
        assert time.monotonic() - started < 5
    log.warning("nobody listens")  # and nothing is raised


def test_what_a_command_prints_becomes_records(stdout: Stdout) -> None:
    print_as_log(JSON, "server")
    out.print("[green]ready[/green] at http://127.0.0.1:8000 " + "x" * 100)
    err.print("warning: little memory", markup=False)
    print_error("it broke")
    found = [(record["level"], record["message"]) for record in records(stdout)]
    assert found == [
        ("info", "ready at http://127.0.0.1:8000 " + "x" * 100),
        ("warning", "little memory"),
        ("error", "it broke"),
    ]


def test_text_is_for_people(stdout: Stdout) -> None:
    print_as_log(LoggingConfig(), "server")
    log.warning("intent now serves version %s", 2)
    assert stdout.text().endswith(f"Z warning server[{os.getpid()}] flywheel.test: intent now serves version 2\n")


@pytest.mark.parametrize(("terminal", "format_"), [(True, "text"), (False, "json")])
def test_auto_is_json_unless_stdout_is_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, format_: str
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert logs.format_of(LoggingConfig(format="auto")) == format_


def test_the_last_words_of_a_process_are_a_record_too(stdout: Stdout) -> None:
    assert logs.last_line("error: Ray has ended", logging.ERROR) == b"error: Ray has ended\n"
    logs.log_to_stdout(JSON, "server")
    assert json.loads(logs.last_line("error: Ray has ended", logging.ERROR))["level"] == "error"
