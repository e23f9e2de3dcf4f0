"""The command line as an HTTP client: how a server is named, and proxies of the environment."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serve.cli.client import ServerError, base_url, call
from tests.helpers.command import free_port


class Server(ThreadingHTTPServer):
    """Answers each GET with the path that was asked for, or with `content`."""

    content: bytes | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        content = self.server.content if self.server.content is not None else json.dumps(self.path).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("form", ["{}", "{}/", " {}// ", "HTTP{}", "localhost{}"])
def test_a_server_is_found_by_each_form_of_its_address(server: Server, form: str) -> None:
    rest = {"HTTP{}": server.url[4:], "localhost{}": f":{server.server_port}"}.get(form, server.url)
    assert call(form.format(rest), "/v2") == "/v2"


def test_a_prefix_stays_and_a_path_is_quoted(server: Server) -> None:
    assert call(f"{server.url}/models/", "/v2/models/my täsk") == "/models/v2/models/my%20t%C3%A4sk"


@pytest.mark.parametrize(
    "url",
    ["", "http://", "ftp://host:1", "http://host:port", "http://host:0", "http://host:99999", "http://a b", "http://[::1",
     "http://host/?a=1", "http://host\n", "http://ho\x00st"],
)  # fmt: skip
def test_what_is_no_address_is_a_sentence(url: str) -> None:
    if url.strip() != url:
        assert base_url(url) == url.strip()
        return
    with pytest.raises(ServerError, match=r"is not the address of a server; it looks like http://127\.0\.0\.1:8000"):
        call(url, "/v2")


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_is_asked_for_this_machine(server: Server, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    assert call(server.url, "/v2") == "/v2"
    assert call(f"localhost:{server.server_port}", "/v2") == "/v2"


def test_a_proxy_is_asked_for_another_machine_unless_no_proxy_names_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    assert call("http://flywheel.invalid:8000", "/v2") == "http://flywheel.invalid:8000/v2"
    monkeypatch.setenv("no_proxy", ".invalid")
    with pytest.raises(ServerError, match=r"^No server answers at http://flywheel\.invalid:8000 \("):
        call("http://flywheel.invalid:8000", "/v2")


def test_a_proxy_that_does_not_answer_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(ServerError, match=rf"through the proxy 127\.0\.0\.1:{port} of the environment") as caught:
        call("http://flywheel.invalid", "/v2")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"", b"\xff"])
def test_another_server_is_told_from_flywheel(server: Server, content: bytes) -> None:
    server.content = content
    with pytest.raises(ServerError, match="is not Flywheel: it sends no JSON"):
        call(server.url, "/v2")
