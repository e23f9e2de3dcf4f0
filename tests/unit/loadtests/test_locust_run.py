"""The command of the load tests, and what its Locust makes of servers that fail: real processes, and a small server."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtests.locust.own_server import add_spare_versions
from loadtests.locust.run import parse
from loadtests.locust.scenarios import SCENARIOS
from tests.helpers.command import ROOT, free_port

needs_locust = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None, reason="needs Locust: pip install 'flywheel-serve[load]'"
)


def test_all_scenarios_by_default() -> None:
    assert [scenario.name for scenario in parse([]).scenarios] == list(SCENARIOS)


def test_a_server_that_is_named_is_not_retrained_unless_that_is_asked_for() -> None:
    host = ["--host", "http://127.0.0.1:8000"]
    assert [scenario.name for scenario in parse(host).scenarios] == ["support_desk", "market_open", "product_page"]
    assert [scenario.name for scenario in parse([*host, "--scenario", "everything"]).scenarios] == ["everything"]


def test_each_task_gets_a_version_that_can_be_moved_though_a_gate_refuses(tmp_path: Path) -> None:
    for version, content in (("9", "champion"), ("10", "tried once")):
        (tmp_path / "bundles" / "intent" / version).mkdir(parents=True)
        (tmp_path / "bundles" / "intent" / version / "manifest.json").write_text(content)
    (tmp_path / "bundles" / "intent" / "work").mkdir()
    (tmp_path / "releases").mkdir()
    release = {"champion": "9", "versions": {"9": "bundles/intent/9"}}
    (tmp_path / "releases" / "intent.json").write_text(json.dumps(release))
    add_spare_versions(tmp_path)
    assert (tmp_path / "bundles" / "intent" / "11" / "manifest.json").read_text() == "champion"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--scenario", "night"], "there is no scenario 'night'"),
        (["--users", "0"], "must be above 0"),
        (["--minutes", "0"], "must be above 0"),
        (["--host", "127.0.0.1:8000"], "is not an address such as http://127.0.0.1:8000"),
    ],
)
def test_wrong_options_are_refused_by_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert sentence in capsys.readouterr().err


@needs_locust
@pytest.mark.parametrize(
    ("name", "users"),
    [
        ("support_desk", {"Agent", "Customer", "TeamLead"}),
        ("market_open", {"Analyst", "Feed", "Reader"}),
        ("product_page", {"Visitor"}),
        ("everything", {"Agent", "Customer", "TeamLead", "Analyst", "Feed", "Reader", "Visitor", "Operator"}),
    ],
)
def test_each_locustfile_has_its_users(name: str, users: set[str]) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "locust", "--locustfile", SCENARIOS[name].locustfile, "--list"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert set(listed.stdout.split(":")[1].split()) == users


@needs_locust
def test_a_server_that_fails_ends_the_load_test_with_1_and_a_sentence() -> None:
    with answering(500, {"error": "no", "code": "internal_error"}) as url:
        done = shopping(url)
    assert done.returncode == 1, done.stdout
    assert "MISSED recommendation: predict: " in done.stdout
    assert "requests failed, 100.00%; at most 0.10% may" in done.stdout
    assert "500: internal_error" in done.stdout


@needs_locust
def test_a_refusal_without_an_overload_is_a_failure() -> None:
    with answering(503, {"error": "busy", "code": "overloaded"}, retry_after="1") as url:
        done = shopping(url)
    assert done.returncode == 1, done.stdout
    assert "requests failed, 100.00%" in done.stdout
    assert "503: overloaded" in done.stdout


@needs_locust
def test_a_200_that_is_no_answer_is_a_failure() -> None:
    with answering(200, {"model_name": "recommendation", "model_version": "1"}) as url:
        done = shopping(url)
    assert done.returncode == 1, done.stdout
    assert "the answer has no predictions" in done.stdout


@needs_locust
def test_a_server_that_is_away_is_a_failure() -> None:
    done = shopping(f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1, done.stdout
    assert "ConnectionRefusedError" in done.stdout


def shopping(url: str) -> subprocess.CompletedProcess[str]:
    """Four visitors for four seconds."""
    return subprocess.run(
        [sys.executable, "-m", "locust", "--locustfile", SCENARIOS["product_page"].locustfile, "--host", url,
         "--headless", "--only-summary", "--users", "4", "--spawn-rate", "4", "--run-time", "4s"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@contextmanager
def answering(status: int, body: dict[str, str], *, retry_after: str | None = None) -> Iterator[str]:
    """A server that answers every POST like this."""
    content = json.dumps(body).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            if retry_after is not None:
                self.send_header("retry-after", retry_after)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_locustfiles_are_the_scenarios() -> None:
    folder = Path(ROOT / "loadtests" / "locust")
    found = {file.stem for file in folder.glob("*.py") if "judged_by(SCENARIOS[" in file.read_text()}
    assert found == set(SCENARIOS)
