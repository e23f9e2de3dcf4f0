"""Counts lie in memory, are collected at once, and outlive the process that made them. No disk can fail them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve.metric_sockets import Processes, merged
from tests.helpers.command import ROOT
from tests.helpers.waiting import eventually

_COUNTS = """
import resource, sys
from pathlib import Path
from serve.metrics import Metrics, serve_metrics
counted = Metrics("intent")
serve_metrics(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # as a full disk, for this process alone
for number in map(int, sys.stdin):
    for _ in range(number):
        counted.request("1", "predict", 200, 0.5)
        counted.request(str(_), "predict", 200, 0.002)
    counted.waiting(7, 0.25 * number)
    sys.stderr.write(".")
    sys.stderr.flush()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for the address of a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a process that counts two requests for each of the number that it is told."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(where: Path = folder, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", _COUNTS, str(where)], env={**os.environ, **environment}, cwd=ROOT,
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def count(process: subprocess.Popen[bytes], number: int) -> None:
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"%d\n" % number)
    process.stdin.flush()
    assert process.stderr.read(1) == b"."


def collected(processes: Processes) -> dict[str, float]:
    """Values of all samples, those of version 1 alone, by name and bound."""
    return {
        f"{sample.name} {sample.labels.get('le', '')}".strip(): sample.value
        for family in merged(processes.snapshots())
        for sample in family.samples
        if sample.labels.get("version", "1") == "1"
    }


def test_counts_of_all_processes_are_one_at_once_and_outlive_them(folder: Path, start: Start) -> None:
    one, two = start(), start()
    processes = Processes(folder)
    count(one, 300)  # each with a version of its own, as memory-mapped files would grow by
    count(two, 5)
    both = collected(processes)
    assert both["flywheel_requests_total"] == 300 + 5 + 2
    assert both["flywheel_request_latency_seconds_bucket 0.001"] == 0
    assert both["flywheel_request_latency_seconds_bucket 0.0025"] == 2
    assert both["flywheel_request_latency_seconds_bucket +Inf"] == 307
    assert both["flywheel_request_latency_seconds_sum"] == pytest.approx(305 * 0.5 + 2 * 0.002)
    assert both["flywheel_waiting_texts"] == 14
    assert both["flywheel_backlog_seconds"] == 75  # of the replica with the most

    one.kill()
    one.wait()
    for _ in range(2):  # the counts of the dead are added once
        rest = collected(processes)
        assert rest["flywheel_requests_total"] == 307
        assert (rest["flywheel_waiting_texts"], rest["flywheel_backlog_seconds"]) == (7, 1.25)
    assert [path.name for path in folder.iterdir()] == [f"{two.pid}.metrics"]
    count(two, 1)
    assert collected(processes)["flywheel_requests_total"] == 308


def test_a_process_that_is_paused_is_counted_as_it_was(folder: Path, start: Start) -> None:
    process, processes = start(), Processes(folder)
    count(process, 3)
    before = collected(processes)
    process.send_signal(signal.SIGSTOP)
    try:
        assert collected(processes) == before
    finally:
        process.send_signal(signal.SIGCONT)
    count(process, 1)
    eventually(lambda: collected(processes)["flywheel_requests_total"] == 5, 5)


def test_a_variable_of_another_program_maps_no_files(folder: Path, start: Start) -> None:
    (folder / "others").mkdir()
    process = start(PROMETHEUS_MULTIPROC_DIR=str(folder / "others"))
    count(process, 3)
    assert list((folder / "others").iterdir()) == []
    assert collected(Processes(folder))["flywheel_requests_total"] == 4


def test_a_folder_that_cannot_be_made_costs_the_metrics_and_not_the_process(folder: Path, start: Start) -> None:
    (folder / "file").write_text("a file")
    process = start(folder / "file")
    assert process.stderr is not None
    assert b"missing in /metrics" in process.stderr.readline()
    count(process, 3)
    assert Processes(folder / "file").snapshots() == [[]]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4"),
        ("text/plain;version=1.0.0;escaping=underscores", "text/plain; version=1.0.0"),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3", "application/openmetrics-text"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, content_type: str) -> None:
    from serve.metrics import exposition

    text, found = exposition(accept)
    assert found.startswith(content_type)
    assert text.endswith(b"# EOF\n") == found.startswith("application/openmetrics-text")
