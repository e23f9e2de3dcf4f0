"""What a request's headers say, in whatever letters and bytes clients send them."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from starlette.requests import Request

from serve.api.operations import authorize
from serve.api.request import require_json
from serve.config import ServerConfig
from serve.errors import Forbidden, UnsupportedMediaType


def request(**headers: bytes) -> Request:
    raw = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize("coding", [b"identity", b"Identity", b" IDENTITY ", b"identity, Identity", b"", b","])
def test_a_body_that_is_not_encoded_is_read(coding: bytes) -> None:
    require_json(request(content_encoding=coding))


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"gzip, identity", b"identity, br", b"x" * 500])
def test_an_encoded_body_is_refused_with_what_to_do(coding: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="send the body as it is") as refused:
        require_json(request(content_encoding=coding))
    assert len(str(refused.value)) < 200


TOKEN = "s3cret-tökén"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_an_operators_token_of_any_letters_is_accepted(scheme: str) -> None:
    server = ServerConfig(operator_token=SecretStr(TOKEN))
    authorize(request(authorization=f"{scheme} {TOKEN}".encode()), server)
    authorize(request(authorization=f"{scheme}  {TOKEN} ".encode()), server)


@pytest.mark.parametrize(
    "given", [TOKEN, "", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer s3cret"]
)
def test_another_token_or_scheme_is_refused(given: str) -> None:
    with pytest.raises(Forbidden, match="not the operator's"):
        authorize(request(authorization=given.encode()), ServerConfig(operator_token=SecretStr(TOKEN)))
