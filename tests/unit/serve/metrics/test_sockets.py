"""Counts lie in memory, are collected at once, and outlive the process that made them. No disk can fail them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve.metrics.catalogue import BY_FAMILY
from serve.metrics.metric import MAX_VERSIONS
from serve.metrics.snapshot import Snapshot, merged, newest_versions, samples_of
from serve.metrics.sockets import Processes, serve
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
        counted.request("1000", "predict", 200, 0.5)
        counted.request("1000", f"endpoint {_}", 200, 0.002)
        counted.texts(str(_), "linear", 1)
    counted.waiting(7, 0.25 * number, 0.5)
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
    """Values of all samples, those of version 1000 alone, by name."""
    found: dict[str, float] = {}
    for (name, labels), value in samples_of(merged(processes.snapshots())).items():
        if dict(labels).get("version", "1000") == "1000":
            found[name] = found.get(name, 0) + value
    return found


def buckets(processes: Processes) -> list[float]:
    """Of the latency of the endpoint that all have."""
    [values] = [
        values
        for labels, values in merged(processes.snapshots())["flywheel_request_latency_seconds"].items()
        if labels[2] == "endpoint 0"
    ]
    return values[:-1]


def test_counts_of_all_processes_are_one_at_once_and_outlive_them(folder: Path, start: Start) -> None:
    one, two = start(), start()
    processes = Processes(folder)
    count(one, 300)  # each with an endpoint and a version of its own, as memory-mapped files would grow by
    count(two, 5)
    both = collected(processes)
    assert both["flywheel_requests_total"] == 2 * 305
    assert buckets(processes)[:3] == [0, 0, 2]  # up to 0.5, 1 and 2.5 ms
    assert both["flywheel_request_latency_seconds_count"] == 2 * 305
    assert both["flywheel_request_latency_seconds_sum"] == pytest.approx(305 * (0.5 + 0.002))
    assert both["flywheel_waiting_texts"] == 14
    assert both["flywheel_backlog_seconds"] == 75  # of the replica with the most
    assert both["flywheel_replica_starts_total"] == 2

    one.kill()
    one.wait()
    for _ in range(2):  # the counts of the dead are added once
        rest = collected(processes)
        assert rest["flywheel_requests_total"] == 610
        assert (rest["flywheel_waiting_texts"], rest["flywheel_backlog_seconds"]) == (7, 1.25)
    assert sorted(path.name for path in folder.iterdir()) == [f"{two.pid}.metrics", "collected"]
    count(two, 1)
    assert collected(processes)["flywheel_requests_total"] == 612


class Faulty:
    """A collector that fails at the first scrape."""

    def __init__(self) -> None:
        self.scrapes = 0

    def collect(self) -> list[object]:
        self.scrapes += 1
        if self.scrapes == 1:
            raise RuntimeError("dictionary changed size during iteration")
        return []


def test_a_collector_that_fails_once_does_not_end_the_metrics_of_its_process(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Faulty()
    serve(folder, collector)  # type: ignore[arg-type]
    processes = Processes(folder)
    processes.snapshots()
    processes.snapshots()
    assert collector.scrapes == 2
    assert [record.getMessage() for record in caplog.records] == ["the metrics of this process cannot be read"]


def test_readers_that_left_while_a_process_was_paused_delay_no_other(folder: Path) -> None:
    collector = Faulty()
    serve(folder, collector)  # type: ignore[arg-type]
    for _ in range(30):
        with socket.socket(socket.AF_UNIX) as reader:
            reader.connect(str(folder / f"{os.getpid()}.metrics"))
    assert len(Processes(folder).snapshots()) == 2  # of this process, and of those that have ended


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
    eventually(lambda: collected(processes)["flywheel_requests_total"] == 8, 5)


def test_a_variable_of_another_program_maps_no_files(folder: Path, start: Start) -> None:
    (folder / "others").mkdir()
    process = start(PROMETHEUS_MULTIPROC_DIR=str(folder / "others"))
    count(process, 3)
    assert list((folder / "others").iterdir()) == []
    assert collected(Processes(folder))["flywheel_requests_total"] == 6


def test_a_folder_that_cannot_be_made_costs_the_metrics_and_not_the_process(folder: Path, start: Start) -> None:
    (folder / "file").write_text("a file")
    process = start(folder / "file")
    assert process.stderr is not None
    assert b"missing in /metrics" in process.stderr.readline()
    count(process, 3)
    assert Processes(folder / "file").snapshots() == [{}]


def test_no_series_of_a_dead_process_stays_but_what_it_counted(folder: Path, start: Start) -> None:
    process, processes = start(), Processes(folder)
    count(process, 2)
    assert {"flywheel_waiting_texts", "flywheel_process_resident_memory_bytes"} <= collected(processes).keys()
    process.kill()
    process.wait()
    left = merged(processes.snapshots())
    assert {family for family in left if BY_FAMILY[family].kind == "gauge"} == set()
    assert left["flywheel_replica_starts"] == {("intent",): [1.0]}


def test_who_collects_anew_begins_at_0_and_not_at_the_sum_of_the_living(folder: Path, start: Start) -> None:
    one, two = start(), start()
    first = Processes(folder)
    count(one, 100)
    count(two, 5)
    assert collected(first)["flywheel_requests_total"] == 210
    one.kill()
    one.wait()
    assert collected(first)["flywheel_requests_total"] == 210

    second = Processes(folder)  # after the control application was replaced: 10 would be less than 210, a reset
    assert collected(second)["flywheel_requests_total"] == 0
    assert collected(second)["flywheel_request_latency_seconds_count"] == 0
    assert collected(second)["flywheel_waiting_texts"] == 7
    count(two, 3)
    three = start()
    count(three, 1)
    assert collected(second)["flywheel_requests_total"] == 6 + 2
    two.kill()
    two.wait()
    assert collected(second)["flywheel_requests_total"] == 6 + 2


def test_many_replicas_that_die_leave_the_series_of_the_newest_versions(folder: Path, start: Start) -> None:
    process, processes = start(), Processes(folder)
    count(process, 200)  # of as many versions
    collected(processes)
    process.kill()
    process.wait()
    left = merged(processes.snapshots())["flywheel_texts"]
    assert {version for _, version, *_ in left} == {str(200 - n) for n in range(1, MAX_VERSIONS)}  # and 1000


def test_versions_are_forgotten_task_by_task() -> None:
    counts: Snapshot = {
        "flywheel_texts": {
            **{("intent", str(n), "linear"): [1.0] for n in range(50)},
            **{("sentiment", version, "linear"): [1.0] for version in ("1", "none")},
        },
        "flywheel_dropped_texts": {("intent", "expired"): [1.0]},
    }
    left = newest_versions(counts)
    assert len(left["flywheel_texts"]) == MAX_VERSIONS + 2
    assert ("sentiment", "1", "linear") in left["flywheel_texts"]
    assert left["flywheel_dropped_texts"] == {("intent", "expired"): [1.0]}
