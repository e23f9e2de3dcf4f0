"""A file of corrections reaches a server whose limits, or those of a proxy before it, are not known to the client."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest

from models.data.dataset import DatasetError, read_rows
from serve.cli.batches import Line
from serve.cli.client import ServerError
from serve.cli.corrections import read_corrections, send
from serve.cli.main import main

PATH = "/v2/models/intent/feedback"


class Proxy(ThreadingHTTPServer):
    """Takes at most `max_bytes` and `max_items` a request; refuses as nginx does, and as Flywheel does."""

    daemon_threads = True
    max_bytes, max_items, busy, answers = 1 << 20, 1000, 0, 1_000_000
    status, page = 202, b""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sizes: list[int] = []
        self.taken: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        items = orjson.loads(body)["feedback"]
        server = self.server
        if server.busy:
            server.busy -= 1
            self._answer(503, {"error": "the store is away", "code": "not_ready"}, {"retry-after": "0"})
        elif len(body) > server.max_bytes:
            self._answer(413, b"<html>Request Entity Too Large</html>")
        elif len(items) > server.max_items:
            self._answer(422, {"error": "feedback: too many items", "code": "invalid_request", "limit": 1})
        elif server.page:
            self._answer(server.status, server.page)
        elif not server.answers:
            self._answer(500, {"error": "gone", "code": "internal"})
        else:
            server.answers -= 1
            server.sizes.append(len(body))
            server.taken += [item["text"] for item in items]
            self._answer(202, {"taken": len(items), "results": [{"status": "accepted"} for _ in items]})

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else orjson.dumps(value)
        self.send_response(status)
        for name, header in {"content-length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, header)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None: ...


@contextmanager
def running() -> Iterator[Proxy]:
    with Proxy() as proxy:
        thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with running() as proxy:
        yield proxy


def lines(count: int, characters: int = 10) -> list[Line]:
    return [Line(n, orjson.dumps({"text": f"{n} " + "x" * characters})) for n in range(1, count + 1)]


@pytest.mark.parametrize("characters", [10, 1350, 4000])
def test_requests_are_bounded_by_bytes_and_by_items(proxy: Proxy, characters: int) -> None:
    sent = lines(1500, characters)
    results = list(send(proxy.url, PATH, sent))
    assert results == [(line.number, {"status": "accepted"}) for line in sent]
    assert proxy.taken == [orjson.loads(line.item)["text"] for line in sent]
    assert max(proxy.sizes) <= 1 << 18
    assert len(proxy.sizes) == {10: 2, 1350: 8, 4000: 24}[characters]


@pytest.mark.parametrize(("max_bytes", "max_items"), [(2_000, 1000), (1 << 20, 7)])
def test_requests_are_halved_until_they_are_taken(proxy: Proxy, max_bytes: int, max_items: int) -> None:
    proxy.max_bytes, proxy.max_items = max_bytes, max_items
    sent = lines(100, 100)
    assert list(send(proxy.url, PATH, sent)) == [(line.number, {"status": "accepted"}) for line in sent]
    assert len(proxy.taken) == 100


def test_a_line_that_no_request_can_hold_is_refused_alone(proxy: Proxy) -> None:
    proxy.max_bytes = 2_000
    sent = [*lines(3), Line(4, orjson.dumps({"text": "x" * 3000})), *lines(2)]
    results = [result for _, result in send(proxy.url, PATH, sent)]
    assert [result.get("status", result.get("error", ""))[:3] for result in results] == ["acc"] * 3 + ["413"] + [
        "acc"
    ] * 2


def test_a_store_that_is_away_for_a_moment_is_asked_again(proxy: Proxy) -> None:
    proxy.busy = 4
    assert len(list(send(proxy.url, PATH, lines(3)))) == 3
    proxy.busy = 5
    with pytest.raises(ServerError, match="503: the store is away"):
        list(send(proxy.url, PATH, lines(3)))


@pytest.mark.parametrize("page", [b"<html>hello</html>", b"{}", b"[]"])
def test_another_server_is_told_from_a_wrong_file(proxy: Proxy, page: bytes) -> None:
    proxy.page, proxy.status = page, 200
    with pytest.raises(ServerError, match="is not Flywheel"):
        list(send(proxy.url, PATH, lines(3)))


def test_a_refusal_that_is_not_about_the_lines_ends_it(proxy: Proxy) -> None:
    proxy.page, proxy.status = b'{"error": "there is nothing here", "code": "not_found"}', 404
    with pytest.raises(ServerError, match="404: there is nothing here") as caught:
        list(send(proxy.url, PATH, lines(3)))
    assert caught.value.body["code"] == "not_found"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'\xef\xbb\xbf{"text": "hi", "label": "greet"}\r\n\r\n{"text": "bye", "label": "leave"}'),
        ("a.csv", "\ufefftext,label\r\nhi,greet\r\n\r\nbye,leave\r\n".encode()),
    ],
)
def test_a_file_is_read_as_training_files_are(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    read = [(line.number, orjson.loads(line.item)) for line in read_corrections(file)]
    assert read == list(read_rows(file, required=("text", "label")))
    assert [row for _, row in read] == [{"text": "hi", "label": "greet"}, {"text": "bye", "label": "leave"}]


def test_values_of_events_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text(
        "id,item_id,event,value\n1,a,rating,4.5\n1,b,dwell,30\n1,c,click,\n1,d,rating,good\n1,e,rating,nan\n"
    )
    sent = [orjson.loads(line.item) for line in read_corrections(file)]
    assert [row.get("value") for row in sent] == [4.5, 30.0, None, "good", "nan"]


def test_cells_become_the_types_of_json_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,Index,text,LABEL, consent\na7,1,,greet,TRUE\n,,hi,greet,\n,x,hi,greet,maybe\n")
    assert [orjson.loads(line.item) for line in read_corrections(file)] == [
        {"id": "a7", "index": 1, "label": "greet", "consent": True},
        {"text": "hi", "label": "greet"},
        {"index": "x", "text": "hi", "label": "greet", "consent": "maybe"},  # the server says what is wrong
    ]


def test_a_file_that_cannot_be_read_to_its_end_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "hi", "label": "greet"}\n{"text": ')
    with pytest.raises(DatasetError, match="line 2: not JSON"):
        read_corrections(file)


def test_a_server_that_goes_leaves_a_sentence_with_the_line(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"text": "{number}", "label": "greet"}}\n' for number in range(1500)))
    proxy.answers = 1
    monkeypatch.setattr(sys, "argv", ["flywheel", "feedback", "intent", str(file), "--url", proxy.url])
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr().err
    assert "500: gone" in said
    assert "(Stopped after line 1000; the whole file can be sent again.)" in said
    assert len(proxy.taken) == 1000


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_some_of_very_many_refused_lines_and_a_file_has_all(
    proxy: Proxy, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "hi", "label": "gret"}\n' * 250)
    result = {"error": "label: no such label", "code": "invalid_request"}
    proxy.status, proxy.page = 422, orjson.dumps({"error": "none", "results": [result] * 250})
    monkeypatch.setattr(sys, "argv", ["flywheel", "feedback", "intent", str(file), "--url", proxy.url])
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr()
    assert said.err.count("no such label") == (100 if terminal else 250)
    assert ("150 more lines were refused; to have them all, add: 2> refused.txt" in said.err) == terminal
    assert "250 sent: 250 refused" in said.out
