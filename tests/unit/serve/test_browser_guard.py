"""No web page can change anything: the check alone."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from serve.browser_guard import accepted_hosts, is_loopback, parse_host, refuse_pages
from serve.errors import Forbidden, UnsupportedMediaType

JSON = "application/json"
LOOPBACK = accepted_hosts("127.0.0.1", None)
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
