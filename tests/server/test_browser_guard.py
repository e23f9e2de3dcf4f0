"""No web page can change anything: each endpoint that changes something, on a real server."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.helpers.contract import TASKS, assert_error
from tests.helpers.server import Server, start_server, stop_server

JSON = "application/json"


OPERATIONS = "/v2/repository/models"
MOVES = ("promote", "challenge", "rollback", "retrain", "erase", "load", "unload")


CHANGES = [
    *(f"/v2/models/{task}/feedback" for task in TASKS),
    *(f"{OPERATIONS}/{task}/{name}" for task in TASKS for name in MOVES),
]
KNOWLEDGE = [(method, path) for path in ("/v2/knowledge", "/v2/knowledge/{id}") for method in ("PUT", "DELETE")]
READS = ("/predict", "/infer", "/index", "/search")


EVIL = "http://evil.example"


def test_these_are_all_endpoints_that_change_something(server: Server) -> None:
    paths = server.get("/openapi.json").json()["paths"]
    posts = {path for path, methods in paths.items() if set(methods) - {"get", "parameters"}}
    assert {path for path in posts if not path.endswith(READS)} == {*CHANGES, *(path for _, path in KNOWLEDGE)}
    assert all({"403", "415"} <= paths[path][method.lower()]["responses"].keys() for method, path in KNOWLEDGE)
    assert all({"403", "415"} <= paths[path]["post"]["responses"].keys() for path in CHANGES)


@pytest.mark.parametrize("path", CHANGES)
def test_no_page_changes_anything(server: Server, path: str) -> None:
    own = server.url.removeprefix("http://")
    body = b'{"text": "a", "label": "track_order", "user": "u", "version": "1", "mode": "shadow"}'
    task = path.split("/")[-2]

    def state() -> list[object]:
        asked = f"{OPERATIONS}/{task}/audit", f"{OPERATIONS}/{task}/retrain", f"/v2/models/{task}/feedback"
        return [server.get("/v2/health/ready").status_code, *(server.get(one).json() for one in asked)]

    before = state()
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
    assert before == state()


@pytest.mark.parametrize(("method", "path"), KNOWLEDGE)
def test_no_page_changes_the_knowledge_base(server: Server, method: str, path: str) -> None:
    url, body = server.url + path.format(id="page"), b'{"question": "a", "answer": "b", "all": true}'
    for given, status in (
        ({"origin": EVIL, "content-type": JSON}, 403),
        ({"host": "evil.example", "content-type": JSON}, 403),
        ({"content-type": "text/plain"}, 415),
        ({}, 415),
    ):
        assert_error(httpx.request(method, url, headers=given, content=body), status)
    assert server.get("/v2/knowledge/page").status_code == 404


def test_the_servers_own_page_and_a_shell_still_change_things(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    for given in ({}, {"origin": server.url}, {"host": f"LOCALHOST:{port}", "origin": f"http://localhost:{port}"}):
        moved = server.post(f"{OPERATIONS}/intent/rollback", headers={"content-type": JSON, **given})
        assert_error(moved, 409)  # for what it asks: there is nothing to go back to
        fine = {"text": "the parcel never came", "label": "track_order", "source": "desk", "consent": False}
        assert server.post("/v2/models/intent/feedback", json=fine, headers=given).status_code == 202


def test_predict_is_asked_from_anywhere(server: Server) -> None:
    given = {"host": "evil.example", "origin": EVIL}
    assert server.post("/v2/models/intent/predict", json={"text": "hi"}, headers=given).status_code == 200


@pytest.mark.slow
def test_a_server_goes_by_the_names_it_is_given(home: Path, tmp_path: Path) -> None:
    server = start_server(
        home, tmp_path / "log", FLYWHEEL_LEARNING__AUTOMATIC="false", FLYWHEEL_SERVER__HOSTS='["ops.example"]'
    )

    def ask(name: str, host: str | None) -> httpx.Response:
        given = {"content-type": JSON, **({"host": host} if host else {})}
        base = "/v2/models/intent" if name == "feedback" else f"{OPERATIONS}/intent"
        return server.post(f"{base}/{name}", headers=given)

    try:
        for name in ("feedback", *MOVES):
            assert_error(ask(name, None), 403)
        assert_error(ask("rollback", "OPS.example:9"), 409)
        assert_error(ask("feedback", "ops.example"), 400)  # it has no body
    finally:
        assert stop_server(server) == 0
