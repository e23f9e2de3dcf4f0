"""The wrapper around HAProxy: it puts our lines into Serve's file, and closes HAProxy's own pages to other machines."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from serve.api.headers import FULL_MS, REFUSED
from serve.rayserve.environment import has_haproxy
from serve.rayserve.haproxy import WRAPPER, binary
from tests.helpers.command import ROOT, free_port
from tests.helpers.waiting import eventually

needs_haproxy = pytest.mark.skipif(not has_haproxy(), reason="Ray brings no HAProxy for this system")
# As Ray's template has them.
PAGES = {
    "frontend prometheus": "frontend prometheus\n    bind :9101\n    mode http\n",
    "listen stats": "listen stats\n  bind *:8404\n  stats enable\n",
}
ENTRANCE = "frontend http_frontend\n    bind 0.0.0.0:8000\n    default_backend task\n"
GLOBAL = "global\n    maxconn 4096\n"
DEFAULTS = """defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    log global
    balance leastconn
"""
BACKENDS = """backend default_backend
    http-request return status 404
backend task
    log global
    default-server check
    # Servers in this backend
    server replica 127.0.0.1:9000 check
"""


def start_wrapper(configuration: Path, program: str | None = None) -> tuple[str, set[str]]:
    """What the wrapper says on stderr, and the tweaks that it reports.

    In HAProxy's place it becomes a program that prints its arguments; `program` is what checks the configuration.
    """
    reports_folder = configuration.parent / "reports"
    stand_in = configuration.parent / "haproxy"
    check = f'exec {program or binary()} "$@"'
    stand_in.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then {check}; fi\necho "$@"\ncat "$HAPROXY_REPORTS"/*.json >&2\n'
    )
    stand_in.chmod(0o755)
    environment = {
        **os.environ,
        "HAPROXY": str(stand_in),
        "HAPROXY_PYTHON": sys.executable,
        "HAPROXY_DEADLINE_S": "10",
        "HAPROXY_REPORTS": str(reports_folder),
    }
    shutil.rmtree(reports_folder, ignore_errors=True)
    command = [WRAPPER, "-db", "-f", configuration, "-sf", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"-db -f {configuration} -sf 1\n"
    said, _, report = done.stderr.rpartition("[")
    return said, set(json.loads("[" + report))


EVERYTHING = {"haproxy", "haproxy_pages", "haproxy_lines", "haproxy_ends"}


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """As Serve's template makes it, in small."""
    path = tmp_path / "a folder" / "haproxy.cfg"
    path.parent.mkdir()
    path.write_text(GLOBAL + DEFAULTS + PAGES["frontend prometheus"] + ENTRANCE + BACKENDS + PAGES["listen stats"])
    return path


@needs_haproxy
def test_the_wrapper_changes_the_pages_and_puts_each_line_in_its_section(configuration: Path) -> None:
    before = configuration.read_text()
    assert start_wrapper(configuration) == ("", EVERYTHING)
    after = configuration.read_text()
    places = {
        "process": "global",
        "defaults": "defaults",
        "frontend": "frontend http_frontend",
        "no_application": "backend default_backend",
        "backend": "backend task",
    }
    for ours, place in places.items():
        lines = (Path(WRAPPER).with_name(f"{ours}.cfg")).read_text()
        assert after.count(lines) == 1
        before_ours = after.partition(lines)[0]
        section = re.findall(r"^(\S.*)$", before_ours, re.M)[-1]
        assert section == place
        after = after.replace(lines, "")
    expected = before.replace("bind :9101", "bind 127.0.0.1:9101").replace("bind *:8404", "bind 127.0.0.1:8404")
    assert after == expected


@needs_haproxy
def test_a_file_that_was_changed_already_stays_as_it_is(configuration: Path) -> None:
    start_wrapper(configuration)
    after = configuration.read_text()
    assert start_wrapper(configuration) == ("", EVERYTHING)
    assert configuration.read_text() == after


@needs_haproxy
@pytest.mark.parametrize("missing", PAGES)
def test_haproxy_starts_with_a_warning_where_one_of_its_pages_is_not_found(configuration: Path, missing: str) -> None:
    text = configuration.read_text().replace(PAGES[missing], f"{missing.replace(' ', ' other')}\n  mode http\n")
    configuration.write_text(text)
    said, took = start_wrapper(configuration)
    assert said.count("warning") == 1
    assert missing in said
    assert took == EVERYTHING - {"haproxy_pages"}


@needs_haproxy
@pytest.mark.parametrize(
    "place",
    ["global\n", "defaults\n", "frontend http_frontend\n", "backend default_backend\n", "    default-server check\n"],
)
def test_haproxy_starts_with_serves_own_lines_and_a_warning_where_a_place_is_missing(
    configuration: Path, place: str
) -> None:
    text = configuration.read_text().replace(place, "", 1)
    configuration.write_text(text)
    said, took = start_wrapper(configuration, program="true")
    assert said.count("warning") == 1
    assert place.strip().split()[0] in said
    assert took == EVERYTHING - {"haproxy_lines"}
    assert "tune.pool-low-fd-ratio" not in configuration.read_text()


@needs_haproxy
def test_haproxy_starts_with_serves_own_file_where_it_refuses_ours(configuration: Path) -> None:
    before = configuration.read_text()
    said, took = start_wrapper(configuration, program="false")
    assert said.count("warning") == 2
    assert took == {"haproxy", "haproxy_ends"}
    assert configuration.read_text() == before


def test_the_headers_that_haproxy_and_a_replica_speak_by_are_the_same() -> None:
    lines = Path(WRAPPER).with_name("backend.cfg").read_text()
    found = {*re.findall(r"x-flywheel-[a-z-]+", lines)}
    assert found == {REFUSED, FULL_MS}


@needs_haproxy
@pytest.mark.parametrize("named", [True, False])
def test_haproxy_logs_requests_only_where_the_operator_names_a_log(configuration: Path, named: bool) -> None:
    port = free_port()
    with socket.socket(type=socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        log.settimeout(1)
        text = configuration.read_text().replace(
            "maxconn", f"log 127.0.0.1:{log.getsockname()[1]} local0 info\n  maxconn"
        )
        for old in ("0.0.0.0:8000", ":9101", "*:8404"):
            text = text.replace(old, f"127.0.0.1:{port if old.startswith('0') else free_port()}")
        configuration.write_text(
            text.replace("default_backend task", "option httplog\n    http-request return status 200")
        )
        environment = {
            **os.environ,
            "HAPROXY": binary(),
            "HAPROXY_PYTHON": sys.executable,
            "HAPROXY_DEADLINE_S": "10",
            **({"RAY_SERVE_HAPROXY_LOG_TARGET": "any"} if named else {}),
        }
        with subprocess.Popen([WRAPPER, "-db", "-f", configuration], env=environment) as haproxy:
            try:
                eventually(lambda: is_open(port), 10)
                assert httpx.get(f"http://127.0.0.1:{port}/asked").status_code == 200
                assert any(b"/asked" in line for line in datagrams(log)) is named
            finally:
                haproxy.kill()


def is_open(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def datagrams(log: socket.socket) -> Iterator[bytes]:
    """Until none comes any more."""
    with suppress(TimeoutError):
        while True:
            yield log.recv(65536)


@needs_haproxy
def test_haproxy_starts_where_its_report_cannot_be_written(configuration: Path) -> None:
    """A full disk, or a node of a cluster that does not have the home."""
    (configuration.parent / "file").write_text("not a folder")
    stand_in = configuration.parent / "haproxy"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    environment = {
        **os.environ,
        "HAPROXY": str(stand_in),
        "HAPROXY_PYTHON": sys.executable,
        "HAPROXY_DEADLINE_S": "10",
        "HAPROXY_REPORTS": str(configuration.parent / "file" / "reports"),
    }
    done = subprocess.run([WRAPPER, "-db", "-f", configuration], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"-db -f {configuration}\n")
    assert "Traceback" not in done.stderr


@pytest.fixture
def haproxy(configuration: Path) -> Iterator[int]:
    """The port of an HAProxy without any server behind it."""
    with running(configuration) as port:
        yield port


@contextmanager
def running(configuration: Path, deadline_s: int = 10) -> Iterator[int]:
    """Yields the port of an HAProxy with this configuration, on free ports."""
    port = free_port()
    text = configuration.read_text()
    for old in ("0.0.0.0:8000", ":9101", "*:8404"):
        text = text.replace(old, f"127.0.0.1:{port if old.startswith('0') else free_port()}")
    configuration.write_text(text.replace("default_backend task", "use_backend task if { path_beg /v2/models/task/ }"
                                          "\n    default_backend default_backend"))  # fmt: skip
    environment = {
        **os.environ, "HAPROXY": binary(), "HAPROXY_PYTHON": sys.executable, "HAPROXY_DEADLINE_S": str(deadline_s),
    }  # fmt: skip
    with subprocess.Popen([WRAPPER, "-db", "-f", configuration], env=environment) as process:
        try:
            eventually(lambda: is_open(port), 10)
            yield port
        finally:
            process.kill()


def answer(port: int, request: bytes, body: bytes = b"") -> tuple[int, dict[str, str], str]:
    """Status, headers and code of the answer, whose body must be an error of the contract. `body` is sent later."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(request)
        if body:
            time.sleep(0.1)
            client.sendall(body)
        received = b""
        while part := client.recv(65536):
            received += part
    head, _, body = received.decode().partition("\r\n\r\n")
    lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    assert headers["content-type"] == "application/json"
    error = json.loads(body)
    assert set(error) == {"error", "code"}
    return int(lines[0].split()[1]), headers, error["code"]


_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
CLOSE = b"host: flywheel\r\nconnection: close\r\n"


@needs_haproxy
def test_a_body_that_haproxy_cannot_read_is_an_error_of_the_contract(haproxy: int) -> None:
    for body in (b"not chunks\r\n", b"-1\r\n\r\n", b"5\r\nab\r\n\r\n\r\n"):
        request = b"POST /v2/models/task/predict HTTP/1.1\r\n" + CLOSE + b"transfer-encoding: chunked\r\n\r\n"
        assert answer(haproxy, request, body)[::2] == (400, "bad_request")


@needs_haproxy
@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        (b"x-request-id: desk-42\r\n", True), (b"x-request-id: " + b"a" * 128 + b"\r\n", True), (b"", False),
        (b"x-request-id: two words\r\n", False), (b"x-request-id: " + b"a" * 129 + b"\r\n", False),
        (b"x-request-id: a,b\r\n", False), (b"x-request-id: a\r\nx-request-id: b\r\n", False),
    ],
)  # fmt: skip
def test_what_haproxy_answers_has_the_id_of_the_request(haproxy: int, headers: bytes, kept: bool) -> None:
    found = answer(haproxy, b"GET / HTTP/1.1\r\n" + CLOSE + headers + b"\r\n")[1]["x-request-id"]
    assert found == headers.decode().split()[1] if kept else re.fullmatch(_UUID, found)
    chunked = b"POST /v2/models/task/predict HTTP/1.1\r\n" + CLOSE + headers + b"transfer-encoding: chunked\r\n\r\n"
    assert re.fullmatch(_UUID, answer(haproxy, chunked, b"no size\r\n")[1]["x-request-id"])


@needs_haproxy
def test_many_headers_are_not_too_many(haproxy: int) -> None:
    assert answer(haproxy, b"GET / HTTP/1.1\r\n" + CLOSE + b"x-more: 1\r\n" * 300 + b"\r\n")[0] == 503


@needs_haproxy
def test_before_an_application_is_deployed_each_path_is_not_ready(haproxy: int) -> None:
    for path in (b"/", b"/v2/health/ready", b"/v2/models/intent/predict"):
        status, headers, code = answer(haproxy, b"GET " + path + b" HTTP/1.1\r\n" + CLOSE + b"\r\n")
        assert (status, headers["retry-after"], code) == (503, "2", "not_ready")


@needs_haproxy
def test_a_replica_that_is_frozen_is_not_waited_for(configuration: Path) -> None:
    """The kernel accepts its connections, and nobody answers."""
    request = b"POST /v2/models/task/predict HTTP/1.1\r\n" + CLOSE + b"content-length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        text = configuration.read_text().replace("timeout server 5s\n    ", "")  # nor does Serve set one
        configuration.write_text(text.replace("127.0.0.1:9000", f"127.0.0.1:{frozen.getsockname()[1]}"))
        with running(configuration, deadline_s=1) as port:
            assert answer(port, request)[::2] == (504, "deadline_exceeded")


@needs_haproxy
@pytest.mark.parametrize(
    ("path", "found"),
    [("task/predict", True), ("ta%73k/pr%65dict", True), ("%74%61%73%6B/x", True), ("task%2Fpredict", True),
     ("task%00/predict", False), ("ta%2573k/predict", False), ("t%C3%A4sk/predict", False), ("task%20/predict", False)],
)  # fmt: skip
def test_a_percent_encoded_path_finds_its_task(haproxy: int, path: str, found: bool) -> None:
    request = f"GET /v2/models/{path} HTTP/1.1\r\n".encode() + CLOSE + b"\r\n"
    with socket.create_connection(("127.0.0.1", haproxy), timeout=5) as client:
        client.sendall(request)
        received = client.recv(65536)
    assert (b"no replica could answer" in received) is found
    assert (b"starting or ending" in received) is not found


FEW_FILES = """
import os, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
from serve.rayserve.environment import few_connections, max_connections
from serve.rayserve.haproxy import binary
path = Path(sys.argv[2])
path.write_text(path.read_text().replace("maxconn 4096", f"maxconn {max_connections()}"))
print(few_connections(), flush=True)
os.execv(binary(), ["haproxy", "-db", "-f", str(path)])
"""


@needs_haproxy
@pytest.mark.parametrize(("files", "clients"), [(256, "54"), (1024, "361"), (4096, "1,590"), (10360, "")])
def test_haproxy_starts_where_few_files_may_be_open(files: int, clients: str, tmp_path: Path) -> None:
    """Linux's own limit is 4,096, where no init or container sets another. HAProxy needs 10,267 for Serve's default."""
    port, path = free_port(), tmp_path / "haproxy.cfg"
    splice = "    option splice-request\n    option splice-response\n"  # as in Ray's template; it costs files
    servers = "".join(f"    server replica{i} 127.0.0.1:9 check\n" for i in range(64))
    entrance = f"listen task\n    bind 127.0.0.1:{port}\n    http-request return status 204\n{servers}"
    path.write_text(GLOBAL + DEFAULTS + splice + entrance)
    command = [sys.executable, "-c", FEW_FILES, str(files), str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            warning = process.stdout.readline()
            assert warning.startswith(f"the limit of open files lets {clients} connections" if clients else "\n")
            eventually(lambda: listens(port), 5)
        finally:
            process.kill()


# The addresses that Serve writes into HAProxy's file for those of the configuration.
ADDRESSES = """
import sys
from ray import serve
from ray.serve._private.haproxy import HAProxyConfig
from ray.serve.config import HTTPOptions
from serve.config import Config, ServerConfig
from serve.rayserve.server import host_for_serve
for host in sys.argv[1:]:
    address = host_for_serve(Config(server=ServerConfig(host=host)))
    print(HAProxyConfig(http_options=HTTPOptions(host=address)).frontend_host)
"""


@needs_haproxy
@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
def test_haproxy_listens_at_the_addresses_of_the_host(tmp_path: Path) -> None:
    hosts = {"::": {4, 6}, "0.0.0.0": {4}, "::1": {6}, "127.0.0.1": {4}}
    done = subprocess.run(
        [sys.executable, "-c", ADDRESSES, *hosts], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    for (host, families), written in zip(hosts.items(), done.stdout.split(), strict=True):
        port, path = free_port(), tmp_path / "haproxy.cfg"
        answer = "http-request return status 204"
        path.write_text(f"{GLOBAL}{DEFAULTS}listen task\n    bind {written}:{port}\n    {answer}\n")
        with subprocess.Popen([binary(), "-db", "-f", path], stderr=subprocess.DEVNULL) as process:
            try:
                eventually(lambda port=port: listens(port) or listens(port, "[::1]"), 5)  # type: ignore[misc]
                assert {4: listens(port), 6: listens(port, "[::1]")} == {n: n in families for n in (4, 6)}, host
            finally:
                process.kill()


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://{host}:{port}/").status_code == 204
    return False
