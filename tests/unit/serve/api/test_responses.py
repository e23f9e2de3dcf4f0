"""What a disk refuses is 503 with Retry-After; everything else that is unforeseen is 500."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.api.responses import plain


def answer(path: Path) -> Response:
    async def write(_: Request) -> Response:
        with path.open("w") as file:
            file.write("x")
        raise AssertionError("unreachable")

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [], "query_string": b"", "server": ("h", 1)}
    return asyncio.run(plain(write)(Request(scope)))  # type: ignore[arg-type]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_503() -> None:
    response = answer(Path("/dev/full"))
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")
    assert "No space left on device" in orjson.loads(response.body)["error"]


@pytest.mark.parametrize("version", ["2", "secret"])
def test_the_log_names_the_route_and_not_what_a_client_put_into_it(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: Request) -> Response:
        raise ValueError

    app = Starlette(routes=[Route("/v2/models/intent/versions/{version}/predict", plain(broken), methods=["POST"])])

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            return await client.post(f"/v2/models/intent/versions/{version}/predict")

    assert asyncio.run(request()).status_code == 500
    [record] = caplog.records
    assert record.getMessage() == "unforeseen error in POST /v2/models/intent/versions/{version}/predict"


def test_a_fault_of_the_program_is_500(tmp_path: Path) -> None:
    response = answer(tmp_path / "no" / "such" / "folder")
    assert response.status_code == 500
    assert "folder" not in response.body.decode()
