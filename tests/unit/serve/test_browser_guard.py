"""No web page can change anything: the check alone, and each endpoint that changes something on a real server."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers

from serve.browser_guard import accepted_hosts, is_loopback, parse_host, refuse_pages
from serve.errors import Forbidden, UnsupportedMediaType
from tests.conftest import Server, start_server, stop_server
from tests.server.test_http import TASKS, assert_error

JSON = "application/json"
LOOPBACK = accepted_hosts("127.0.0.1", None)
MOVES = ("promote", "challenge", "rollback", "retrain", "erase")
CHANGES = [f"/v2/models/{task}/{name}" for task in TASKS for name in ("feedback", *MOVES)]
EVIL = "http://evil.example"


def headers(host: str | None = "127.0.0.1:8000", origin: str | None = None, content_type: str | None = JSON) -> Headers:
    given = {"host": host, "origin": origin, "content-type": content_type}
    return Headers({name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "LocalHost:1", "[::1]:9000", "[0:0:0:0:0:0:0:1]"])
def test_a_loopback_server_goes_by_its_own_names_with_any_port(host: str) -> None:
    refuse_pages(headers(host), LOOPBACK)
    refuse_pages(headers(host, f"http://{host}"), LOOPBACK)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::2]", "10.0.0.1"]
)
def test_a_host_that_is_not_the_servers_is_refused(host: str) -> None:
    with pytest.raises(Forbidden, match=r"server\.hosts"):
        refuse_pages(headers(host), LOOPBACK)
    refuse_pages(headers(host), accepted_hosts("0.0.0.0", None))


MALFORMED = [
    "", " ", ":8000", "localhost:", "localhost:0", "localhost:65536", "localhost:8000:1", "localhost:x", "localhost ",
    "::1", "[::1", "[::1]]", "[]", "[1]", "[::1%25lo]", "[localhost]", "user@localhost", "localhost/", "localhost,evil",
    "a..b", ".localhost", "localhost.", "-a", "a-", "localhost\n", "localhost\xe9", "a" * 254, "localhost:\xb2",
]  # fmt: skip


@pytest.mark.parametrize("host", MALFORMED, ids=lambda host: repr(host[:20]))
def test_a_malformed_host_is_refused_even_where_any_is_accepted(host: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|Expected|At least|not permitted"):
        parse_host(host)
    with pytest.raises(Forbidden, match="malformed"):
        refuse_pages(headers(host), None)


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_one_host(count: int) -> None:
    raw = [(b"host", b"localhost")] * count
    with pytest.raises(Forbidden, match="one Host header"):
        refuse_pages(Headers(raw=[*raw, (b"content-type", b"application/json")]), None)


FOREIGN = [
    "null", "", EVIL, "http://127.0.0.1", "http://127.0.0.1:8001", "http://localhost:8000", "127.0.0.1:8000",
    "ftp://127.0.0.1:8000", "http://127.0.0.1:8000/", "http://127.0.0.1:8000.evil.example", "http://a@127.0.0.1:8000",
    "http://127.0.0.1:8000 http://evil.example", "http://", "file://",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN, ids=repr)
def test_a_foreign_origin_is_refused(origin: str) -> None:
    for hosts in (LOOPBACK, None):
        with pytest.raises(Forbidden, match="Origin"):
            refuse_pages(headers(origin=origin), hosts)


def test_of_two_origins_neither_may_be_foreign() -> None:
    fine = headers(origin="http://127.0.0.1:8000")
    refuse_pages(fine, LOOPBACK)
    with pytest.raises(Forbidden, match="Origin"):
        refuse_pages(Headers(raw=[*fine.raw, (b"origin", EVIL.encode())]), LOOPBACK)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("ops.example", "http://ops.example"),
        ("ops.example:80", "http://ops.example"),
        ("ops.example:443", "https://ops.example"),
        ("ops.example", "https://OPS.example:443"),
        ("[fd00::7]:8000", "http://[fd00:0::7]:8000"),
    ],
)
def test_the_servers_own_origin_may_leave_out_its_schemes_port(host: str, origin: str) -> None:
    refuse_pages(headers(host, origin), accepted_hosts("0.0.0.0", ["Ops.Example", "[FD00::7]"]))


@pytest.mark.parametrize("content_type", [JSON, "Application/JSON; charset=utf-8"])
def test_json_is_taken(content_type: str) -> None:
    refuse_pages(headers(content_type=content_type), LOOPBACK)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "text/plain;application/json", "multipart/form-data", "application/jsonp", f"{JSON}, a/b"],
)
def test_what_is_not_declared_as_json_is_refused(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaType, match=JSON):
        refuse_pages(headers(content_type=content_type), LOOPBACK)


def test_configured_hosts_are_all_that_is_accepted() -> None:
    for listens_on in ("127.0.0.1", "0.0.0.0"):
        hosts = accepted_hosts(listens_on, ["ops.example"])
        refuse_pages(headers("OPS.example:1"), hosts)
        with pytest.raises(Forbidden, match=r"server\.hosts"):
            refuse_pages(headers("localhost"), hosts)


def test_which_addresses_are_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "ops.example")))
    assert accepted_hosts("127.8.8.8", None) == {"127.8.8.8", "127.0.0.1", "localhost", "[::1]"}
    assert accepted_hosts("::1", None) == LOOPBACK


def test_these_are_all_endpoints_that_change_something(server: Server) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    posts = {path for path, methods in paths.items() if set(methods) - {"get", "parameters"}}
    assert {path for path in posts if not path.endswith(("/predict", "/infer"))} == set(CHANGES)
    assert all({"403", "415"} <= paths[path]["post"]["responses"].keys() for path in CHANGES)


@pytest.mark.parametrize("path", CHANGES)
def test_no_page_changes_anything(server: Server, path: str) -> None:
    own = server.url.removeprefix("http://")
    body = b'{"text": "a", "label": "track_order", "user": "u", "version": "1", "mode": "shadow"}'
    asked = path.rsplit("/", 1)[0]
    before = server.get(f"{asked}/audit").json(), server.get(f"{asked}/feedback").json()
    for given in (
        {"host": "evil.example", "origin": EVIL, "content-type": "text/plain"},
        {"host": "evil.example", "content-type": JSON},
        {"host": f"{own}.evil.example", "content-type": JSON},
        {"origin": EVIL, "content-type": JSON},
        {"origin": "null", "content-type": JSON},
        {"origin": "http://localhost:1", "content-type": JSON},
    ):
        for content in (body, b""):
            error = assert_error(server.post(path, headers=given, content=content), 403)
            assert error["code"] == "forbidden"
            assert " set " in error["error"]
    for given in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        for content in (body, b""):
            error = assert_error(server.post(path, headers=given, content=content), 415)
            assert error["code"] == "unsupported_media_type"
    assert before == (server.get(f"{asked}/audit").json(), server.get(f"{asked}/feedback").json())


def test_the_servers_own_page_and_a_shell_still_change_things(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    for given in ({}, {"origin": server.url}, {"host": f"LOCALHOST:{port}", "origin": f"http://localhost:{port}"}):
        moved = server.post("/v2/models/intent/rollback", headers={"content-type": JSON, **given})
        assert_error(moved, 409)  # for what it asks: there is nothing to go back to
        fine = {"text": "the parcel never came", "label": "track_order", "source": "desk", "consent": False}
        assert server.post("/v2/models/intent/feedback", json=fine, headers=given).status_code == 202


def test_predict_is_asked_from_anywhere(server: Server) -> None:
    given = {"host": "evil.example", "origin": EVIL}
    assert server.post("/v2/models/intent/predict", json={"text": "hi"}, headers=given).status_code == 200


def test_a_server_goes_by_the_names_it_is_given(home: Path, tmp_path: Path) -> None:
    server = start_server(
        home, tmp_path / "log", FLYWHEEL_LEARNING__AUTOMATIC="false", FLYWHEEL_SERVER__HOSTS='["ops.example"]'
    )

    def ask(name: str, host: str | None) -> httpx.Response:
        given = {"content-type": JSON, **({"host": host} if host else {})}
        return server.post(f"/v2/models/intent/{name}", headers=given)

    try:
        for name in ("feedback", *MOVES):
            assert_error(ask(name, None), 403)
        assert_error(ask("rollback", "OPS.example:9"), 409)
        assert_error(ask("feedback", "ops.example"), 400)  # it has no body
    finally:
        assert stop_server(server) == 0
