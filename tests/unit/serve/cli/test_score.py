"""A file of texts goes to a server that is small, busy, slow or gone, and every row is in the output once, in order."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from models.tasks.sentiment import Sentiment
from serve.cli.score_files import read_rows
from tests.helpers.command import ROOT, Command, refused


class Scorer(ThreadingHTTPServer):
    """Answers as the server does, with the length of the text as its score; takes `max_texts` a request."""

    daemon_threads = True
    max_texts, max_in_time, busy, seconds, answers = 128, 128, 0, 0.0, 1_000_000

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.batches: list[list[Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Scorer

    def do_POST(self) -> None:
        body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        server, [items] = self.server, body.values()
        if server.busy:
            server.busy -= 1
            self._answer(429 if server.busy % 2 else 503, {"error": "busy", "code": "overloaded"}, {"retry-after": "0"})
        elif len(items) > server.max_texts:
            self._answer(422, {"error": "body: too many texts", "code": "invalid_request", "limit": server.max_texts})
        elif len(items) > server.max_in_time:
            self._answer(504, {"error": "the deadline passed", "code": "deadline_exceeded"})
        elif len(server.batches) >= server.answers:
            self._answer(500, {"error": "gone", "code": "internal"})
        else:
            time.sleep(server.seconds)
            server.batches.append(items)
            texts = [item["text"] if isinstance(item, dict) else item for item in items]
            rows = [{"label": "neutral", "score": len(text), "topics": ["other"], "scores": {"a": 1}} for text in texts]
            self._answer(200, {"id": f"p{len(server.batches)}", "predictions": rows})

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = orjson.dumps(value)
        self.send_response(status)
        for name, header in {"content-length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, header)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Scorer]:
    with Scorer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def texts(count: int) -> list[str]:
    return [f'text {n}, "quoted"\r\nand on{"!" * (n % 7)}' for n in range(count)]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    if file.suffix == ".csv":
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return file


def read(file: Path) -> list[dict[str, Any]]:
    if file.suffix != ".csv":
        return [orjson.loads(line) for line in file.read_bytes().splitlines()]
    with file.open(newline="") as rows:
        return list(csv.DictReader(rows))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_every_row_is_there_once_in_order_though_the_server_is_small_and_busy(
    server: Scorer, ending: str, run: Command, tmp_path: Path
) -> None:
    server.max_texts, server.busy = 30, 5
    given = texts(300)
    source = write(tmp_path / f"in.{ending}", [{"text": text} for text in given])
    done = run("score", "sentiment", str(source), "--out", str(tmp_path / f"out.{ending}"), "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert "300 rows" in done.stdout
    rows = read(tmp_path / f"out.{ending}")
    assert [row["text"] for row in rows] == given
    assert [int(row["score"]) for row in rows] == [len(text) for text in given]
    assert sorted(item["text"] for batch in server.batches for item in batch) == sorted(given)
    assert len(server.batches) < 20, "it learns the server's limit"
    for row in rows:
        assert server.batches[int(row["id"][1:]) - 1][int(row["index"])]["text"] == row["text"]
    assert rows[0]["topics"] == ('["other"]' if ending == "csv" else ["other"])


def test_another_task_gets_texts(server: Scorer, run: Command, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "hi"}, {"text": " "}, {"text": 7}])
    done = run("score", "intent", str(source), "--out", str(tmp_path / "out.csv"), "--url", server.url)
    assert server.batches == [["hi"]]
    assert done.returncode == 1
    assert "line 2: text: the text is empty" in done.stderr
    assert "line 3: text: Input should be a valid string" in done.stderr


def test_columns_of_other_names(server: Scorer, run: Command, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"Subject": "Offline", "Body": "No line."}, {"Subject": "", "Body": "Hi"}])
    command = ("score", "intent", str(source), "--out", str(tmp_path / "out.csv"), "--url", server.url)
    assert "no column 'text'; it has: Subject, Body" in refused(run(*command))
    assert "no column 'Title'" in refused(run(*command, "--column", "text=Title"))
    done = run(*command, "--column", "text=Subject", "--column", "text=Body")
    assert done.returncode == 0, done.stderr
    assert server.batches == [["Offline No line.", "Hi"]]


def test_rows_that_cannot_be_predicted_stay_in_the_output_with_the_reason(
    server: Scorer, run: Command, tmp_path: Path
) -> None:
    good = {"text": "good", "Topic": "oil", "published": "2025-03-30T02:30:00+01:00", "document_id": "a1"}
    faults = {
        "text: the text is empty": {"text": "  "},
        "published: has no zone; end it": {"published": "2025-03-30 02:30:00"},
        "published: is not a time as RFC 3339": {"published": "30.03.2025"},
        "published: lies before 1970": {"published": "1969-12-31T23:59:59Z"},
        "published: lies more than a day in the future": {"published": "2999-01-01T00:00:00Z"},
        "document_id: String should have at most 512": {"document_id": "x" * 513},
        "topic: String should have at most 100": {"Topic": "x" * 101},
    }
    rows = [{**good, **fault} for fault in faults.values()]
    source = write(tmp_path / "in.csv", [good, *rows, {**good, "Topic": "", "published": "", "document_id": ""}])
    done = run("score", "sentiment", str(source), "--out", str(tmp_path / "out.csv"), "--url", server.url)
    assert done.returncode == 1
    out = read(tmp_path / "out.csv")
    assert [row["line"] for row in out] == [str(number) for number in range(2, 11)]
    assert [bool(row["error"]) for row in out] == [False, *[True] * 7, False]
    for row, fault in zip(out[1:], faults, strict=False):
        assert row["error"].startswith(fault)
        assert row["label"] == ""
        assert f"line {row['line']}: {fault}" in done.stderr
    [[first, last]] = server.batches
    assert first == {name.lower(): value for name, value in good.items()}
    assert last.keys() == {"text", "document_id"}, "of its own, so that no text counts twice"
    assert last["document_id"].startswith("in.csv/10/")


def test_times_and_ids_of_parquet(tmp_path: Path) -> None:
    hours = np.array(["2025-01-02T03:04:05.5", "NaT"], "datetime64[ms]")
    table = {"text": ["a", "b"], "published": pa.array(hours, pa.timestamp("ms", "UTC")), "document_id": [7, 8]}
    parquet.write_table(pa.table(table), tmp_path / "in.parquet")
    rows = list(read_rows(tmp_path / "in.parquet", Sentiment, "documents"))
    assert [orjson.loads(row.item) for row in rows] == [
        {"text": "a", "published": "2025-01-02T03:04:05.500000+00:00", "document_id": "7"},
        {"text": "b", "document_id": "8"},
    ]


def test_a_server_that_is_too_slow_gets_less_at_once_and_one_that_hangs_ends_the_run(
    server: Scorer, run: Command, tmp_path: Path
) -> None:
    """A text that the server had no time for is predicted later; its row would never be sent again."""
    source, out = write(tmp_path / "in.csv", [{"text": text} for text in texts(200)]), tmp_path / "out.csv"
    command = ("score", "sentiment", str(source), "--out", str(out), "--url", server.url)
    server.max_in_time = 0
    done = run(*command)
    assert done.returncode == 1
    assert "504: the deadline passed (0 of 200 rows" in " ".join(done.stderr.split())
    server.max_in_time = 40
    assert run(*command, "--resume").returncode == 0
    assert [row["error"] for row in read(out)] == [""] * 200


def test_times_as_they_are_found_in_files(server: Scorer, run: Command, tmp_path: Path) -> None:
    given = {
        "1743296400": "2025-03-30T01:00:00+00:00",
        "1743296400.5": "2025-03-30T01:00:00.500000+00:00",
        " 2025-03-30T01:00:00Z ": "2025-03-30T01:00:00Z",
        " ": None,
        "20250330": "published: is not a time as RFC 3339",
        "1743296400000": "published: is not a time as RFC 3339",
        "-5": "published: lies before 1970",
        "nan": "published: is not a time as RFC 3339",
    }
    rows = [{"text": "a", "topic": " oil ", "published": time, "document_id": f" {n} "} for n, time in enumerate(given)]
    source = write(tmp_path / "in.csv", rows)
    run("score", "sentiment", str(source), "--out", str(tmp_path / "out.csv"), "--url", server.url)
    [sent] = server.batches
    errors = [row["error"] for row in read(tmp_path / "out.csv") if row["error"]]
    assert [item.get("published") for item in sent] == list(given.values())[:4]
    for error, fault in zip(errors, list(given.values())[4:], strict=True):
        assert error.startswith(str(fault))
    assert [(item["topic"], item["document_id"]) for item in sent] == [("oil", str(n)) for n in range(4)]


def test_a_number_that_parquet_has_rounded_is_no_id(tmp_path: Path) -> None:
    ids = pa.array([1234567890123456789, None], pa.int64())
    parquet.write_table(pa.table({"text": ["a", "b"], "document_id": ids}), tmp_path / "in.parquet")
    one, other = read_rows(tmp_path / "in.parquet", Sentiment, "documents")
    assert one.fault.startswith("document_id: Input should be a valid string")
    assert other.document_id.startswith("in.parquet/2/")


def test_of_two_columns_the_one_with_the_exact_name_is_read(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "a", "Text": "b"}, {"text": "c"}])
    assert [row.text for row in read_rows(source, Sentiment, "documents")] == ["a", "c"]


def test_text_of_parquet_that_is_not_utf8_is_a_sentence(run: Command, tmp_path: Path) -> None:
    ends, content = pa.py_buffer(np.array([0, 3], np.int32)), pa.py_buffer(b"a\xff\xe9")
    text = pa.Array.from_buffers(pa.string(), 1, [None, ends, content])
    parquet.write_table(pa.table({"text": text}), tmp_path / "in.parquet")
    done = run("score", "sentiment", str(tmp_path / "in.parquet"), "--out", str(tmp_path / "out.csv"))
    assert "cannot be read as Parquet: 'utf-8' codec" in refused(done)


@pytest.mark.parametrize("name", ["mine.csv", "mine.jsonl"])
@pytest.mark.parametrize("content", [b"my only copy", b'my "only\ncopy', b"one\ntwo\n"])
def test_a_file_that_is_no_output_is_left_as_it_is(
    name: str, content: bytes, server: Scorer, run: Command, tmp_path: Path
) -> None:
    source, out = write(tmp_path / "in.csv", [{"text": "a"}]), tmp_path / name
    out.write_bytes(content)
    done = run("score", "sentiment", str(source), "--out", str(out), "--url", server.url, "--resume")
    assert "is not an output of flywheel score" in " ".join(done.stderr.split())
    assert out.read_bytes() == content


def test_a_disk_that_is_full_is_a_sentence_and_the_run_is_gone_on_with(
    server: Scorer, run: Command, tmp_path: Path
) -> None:
    given = texts(1000)
    source, out = write(tmp_path / "in.csv", [{"text": text} for text in given]), tmp_path / "out.csv"
    command = ("score", "sentiment", str(source), "--out", str(out), "--url", server.url)
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "-", sys.executable, "-m", "serve.cli.main", *command]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "cannot be written: File too large." in said
    assert "of 1,000 rows are in" in said
    assert run(*command, "--resume").returncode == 0
    assert [row["text"] for row in read(out)] == given


def test_ctrl_c_is_a_sentence(server: Scorer, run: Command, tmp_path: Path) -> None:
    given = texts(1500)
    source, out = write(tmp_path / "in.csv", [{"text": text} for text in given]), tmp_path / "out.csv"
    command = ("score", "sentiment", str(source), "--out", str(out), "--url", server.url)
    server.seconds = 0.05
    started = [sys.executable, "-m", "serve.cli.main", *command]
    with subprocess.Popen(started, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not out.exists() or out.stat().st_size < 10_000:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "interrupted (" in said
    assert "Traceback" not in said
    server.seconds = 0.0
    assert run(*command, "--resume").returncode == 0
    assert [row["text"] for row in read(out)] == given


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_run_that_ended_is_gone_on_with(server: Scorer, ending: str, run: Command, tmp_path: Path) -> None:
    given = texts(1000)
    source, out = write(tmp_path / "in.csv", [{"text": text} for text in given]), tmp_path / f"out.{ending}"
    command = ("score", "sentiment", str(source), "--out", str(out), "--url", server.url)
    server.answers = 3
    ended = run(*command)
    assert ended.returncode == 1
    assert "500: gone" in ended.stderr
    kept = len(read(out))
    assert f"({kept} of 1,000 rows" in ended.stderr
    assert 0 < kept < 1000
    assert "exists already. Add --resume" in run(*command).stderr
    whole = out.read_bytes()
    server.answers = 1_000_000
    for cut in (1, 7, len(whole) // 2, len(whole) - 3):
        out.write_bytes(whole[:cut])
        server.batches.clear()
        assert run(*command, "--resume").returncode == 0
        assert [row["text"] for row in read(out)] == given
    assert run(*command, "--resume").returncode == 0, "there is nothing left to do"
    assert [row["text"] for row in read(out)] == given
    other = write(tmp_path / "other.csv", [{"text": f"other {text}"} for text in given])
    mistaken = run("score", "sentiment", str(other), "--out", str(out), "--url", server.url, "--resume")
    assert "its last row is not from this file" in mistaken.stderr
    assert [row["text"] for row in read(out)] == given


def test_a_kill_loses_and_doubles_nothing(server: Scorer, run: Command, tmp_path: Path) -> None:
    given = texts(1500)
    source, out = write(tmp_path / "in.jsonl", [{"text": text} for text in given]), tmp_path / "out.csv"
    command = ("score", "sentiment", str(source), "--out", str(out), "--url", server.url)
    server.seconds = 0.05
    with subprocess.Popen([sys.executable, "-m", "serve.cli.main", *command], cwd=ROOT) as process:
        while not out.exists() or out.stat().st_size < 10_000:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    server.seconds = 0.0
    assert 0 < out.read_bytes().count(b"neutral") < 1500
    assert run(*command, "--resume").returncode == 0
    assert [row["text"] for row in read(out)] == given
    sent = [item["document_id"] for batch in server.batches for item in batch]
    assert len(set(sent)) == 1500 <= len(sent), "what was sent again has the same id"


def test_a_server_that_is_not_there_leaves_no_output(run: Command, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": "a"}])
    command = ("score", "sentiment", str(source), "--out", str(tmp_path / "out.csv"), "--url", "http://127.0.0.1:9")
    for _ in range(2):
        done = run(*command)
        assert done.returncode == 1
        assert "No server answers" in done.stderr
        assert "0 of 1 rows" in done.stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("recommendation", "in.csv", "--out", "o.csv"), "recommendation gives none"),
        (("nope", "in.csv", "--out", "o.csv"), "There is no task 'nope'"),
        (("sentiment", "in.csv", "--out", "in.csv"), "is the file to read"),
        (("sentiment", "in.csv", "--out", "o.parquet"), "give a .csv or .jsonl file"),
        (("sentiment", "none.csv", "--out", "o.csv"), "cannot be read: No such file"),
        (("sentiment", "cut.jsonl", "--out", "o.csv"), "line 2: not JSON"),
        (("sentiment", "in.csv", "--out", "no/o.csv"), "No such file or directory"),
    ],
)
def test_a_mistake_is_a_sentence_and_nothing_is_sent(
    args: tuple[str, ...], sentence: str, server: Scorer, run: Command, tmp_path: Path
) -> None:
    write(tmp_path / "in.csv", [{"text": "a"}])
    (tmp_path / "cut.jsonl").write_text('{"text": "a"}\n{"text":')
    done = run("score", *(str(tmp_path / arg) if "." in arg else arg for arg in args), "--url", server.url)
    assert done.returncode == 1
    assert sentence in " ".join(done.stderr.split())
    assert not server.batches
