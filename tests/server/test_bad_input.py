"""Hostile and broken requests: each is refused at once, by the error contract, and the next good one is answered."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.command import flywheel
from tests.helpers.contract import EXAMPLES, TASKS, assert_error
from tests.helpers.server import Server

PREDICT = "/v2/models/intent/predict"
INFER = "/v2/models/intent/infer"
RANK = "/v2/models/recommendation/predict"
HEADER_LENGTH = "Inference-Header-Content-Length"
MEGABYTE = 1 << 20


def send(server: Server, path: str, **kwargs: Any) -> httpx.Response:
    """Post it; the answer must come within a second, and the next good request must be answered too."""
    started = time.perf_counter()
    response = server.post(path, **kwargs)
    seconds = time.perf_counter() - started
    assert_still_good(server, path)
    assert seconds < 1, f"the answer ({response.status_code}) took {seconds:.2f} s"
    return response


def refuse(server: Server, path: str, status: int, **kwargs: Any) -> dict[str, Any]:
    return assert_error(send(server, path, **kwargs), status)


def assert_still_good(server: Server, path: str = PREDICT) -> None:
    task = next((task for task in TASKS if f"/{task}/" in path), "intent")
    response = server.post(f"/v2/models/{task}/predict", json=EXAMPLES[task])
    assert response.status_code == 200, response.text
    assert response.json()["predictions"]


NOT_JSON = [
    b"", b"{", b"where is my order", b'{"text": "a"} x', b"{'text': 'a'}", b'{"text": "\xff"}', b"\x00\x01\x02",
    b'{"text": "\\ud800"}', b"[" * 100_000, b'{"text":' * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:12]))
@pytest.mark.parametrize("path", [PREDICT, INFER, RANK])
def test_not_json(server: Server, path: str, body: bytes) -> None:
    assert refuse(server, path, 400, content=body)["code"] == "not_json"


@pytest.mark.parametrize("value", [[], [1], "text", None, 3, True], ids=repr)
@pytest.mark.parametrize("path", [PREDICT, INFER, RANK])
def test_not_an_object(server: Server, path: str, value: object) -> None:
    assert refuse(server, path, 422, content=json.dumps(value))["fields"][0]["field"] == "body"


WRONG_SHAPES = [
    ({"text": 5}, "text"), ({"text": ["a"]}, "text"), ({"texts": "a"}, "texts"), ({"texts": ["a", None]}, "texts.1"),
    ({"texts": []}, "texts"), ({"text": "a", "txet": "b"}, "txet"), ({"text": "a", "texts": ["b"]}, "body"),
    ({}, "body"), ({"text": ""}, "text"), ({"text": " \t\n\u00a0"}, "text"), ({"texts": ["a", " "]}, "texts"),
    ({"text": "\x00\x00"}, "text"), ({"text": "\u200b\u200d\ufeff"}, "text"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "field"), WRONG_SHAPES, ids=repr)
def test_wrong_shape_names_the_field(server: Server, request_: dict[str, Any], field: str) -> None:
    for path in (PREDICT, "/v2/models/sentiment/predict"):
        error = refuse(server, path, 422, json=request_)
        assert error["code"] == "invalid_request"
        assert field in [entry["field"] for entry in error["fields"]]
        assert all(entry["reason"] for entry in error["fields"])


WRONG_DOCUMENTS = [
    ({"published": "2999-01-01T00:00:00Z"}, "published", "more than a day in the future"),
    ({"published": "2026-01-01T00:00:00"}, "published", "has no zone"),
    ({"published": "1969-12-31T23:59:59Z"}, "published", "before 1970"),
    ({"published": 1764000000}, "published", "RFC 3339"),
    ({"document_id": "x" * 513}, "document_id", "at most 512"),
    ({"topic": "x" * 101}, "topic", "at most 100"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "field", "reason"), WRONG_DOCUMENTS, ids=repr)
def test_what_is_said_of_a_text_is_checked(server: Server, fields: dict[str, Any], field: str, reason: str) -> None:
    good = {"text": "Oil falls"}
    for body, name in (
        ({**good, **fields}, field),
        ({"documents": [good, {**good, **fields}]}, f"documents.1.{field}"),
    ):
        [entry] = refuse(server, "/v2/models/sentiment/predict", 422, json=body)["fields"]
        assert entry["field"] == name
        assert reason in entry["reason"]


def test_too_many_documents(server: Server) -> None:
    for count, limit in ((129, "at most 128"), (4097, "at most 4096")):
        body = {"documents": [{"text": "Oil falls"}] * count}
        assert limit in refuse(server, "/v2/models/sentiment/predict", 422, json=body)["error"]


@pytest.mark.parametrize(
    ("path", "key", "element"),
    [
        ("/v2/models/sentiment/predict", "documents", "{}"),
        (PREDICT, "texts", "1"),
        (PREDICT, "texts", '"a"'),
        (RANK, "candidates", "{}"),
        (INFER, "inputs", "1"),
    ],
)
def test_megabyte_of_wrong_elements(server: Server, path: str, key: str, element: str) -> None:
    count = (MEGABYTE - 100) // (len(element) + 1)
    refuse(server, path, 422, content=f'{{"{key}":[{",".join([element] * count)}]}}')


def test_too_many_texts(server: Server) -> None:
    assert "at most 4096" in refuse(server, PREDICT, 422, json={"texts": ["where is my order"] * 10_000})["error"]


def test_explain_on_128_texts(server: Server) -> None:
    error = refuse(server, PREDICT, 422, json={"texts": ["where is my order"] * 128, "explain": True})
    assert error["limit"] == 128
    assert "the 128 texts have 512 words; at most 128 are explained in one request" in error["error"]
    answered = send(server, PREDICT, json={"texts": [f"order {i}" for i in range(64)], "explain": True})
    assert all("explanation" in prediction for prediction in answered.json()["predictions"])


@pytest.mark.parametrize(
    ("path", "body"),
    [(PREDICT, {"text": "a", "explain": "yes"}), (PREDICT, {"text": "a", "explain": 1}),
     (RANK, {"candidates": [{"id": "a", "text": "a"}], "explain": "yes"})],
)  # fmt: skip
def test_a_wrong_explain(server: Server, path: str, body: dict[str, Any]) -> None:
    assert "explain" in refuse(server, path, 422, json=body)["error"]


UNUSUAL = [
    "where is\x00my order", "where is my order \U0001f4e6\U0001f468\u200d\U0001f469\u200d\U0001f467 ?", "\U0001f4e6",
    "\u0623\u064a\u0646 \u0637\u0644\u0628\u064a\u061f", "\u202ewhere is my order", "我的订单在哪里？",
]  # fmt: skip


@pytest.mark.parametrize("text", UNUSUAL, ids=ascii)
def test_unusual_text_is_answered(server: Server, text: str) -> None:
    assert send(server, PREDICT, json={"text": text}).status_code == 200


@pytest.mark.parametrize("unit", ["a", "where is my order ", "订", "!", "\U0001f4e6"], ids=ascii)
def test_hundred_thousand_characters(server: Server, unit: str) -> None:
    text = (unit * 100_000)[:100_000]
    response = send(server, PREDICT, json={"text": text})
    assert response.status_code == 200
    assert response.json()["predictions"][0]["truncated"] is True


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["where is my order"], **changes}


WRONG_TENSORS = [
    [], [tensor(datatype="FP32")], [tensor(datatype="FP32", data=[1.0])],
    [tensor(data=[1])], [tensor(data=[{"a": 1}])], [tensor(data=None)], [tensor(data="where")], [tensor(data=[" "])],
    [tensor(shape=[2])], [tensor(shape=[10**18, 10**18])], [tensor(shape=[])], [tensor(shape=[1.5])],
    [tensor(shape=[-1])], [tensor(shape=[-1, -1])], [tensor(shape=[0], data=[])],
    [tensor(name="txet")], [tensor(), tensor(name="more")], [tensor(parameters={"binary_data_size": 10})],
]  # fmt: skip


@pytest.mark.parametrize("inputs", WRONG_TENSORS, ids=repr)
def test_wrong_tensors(server: Server, inputs: list[dict[str, Any]]) -> None:
    refuse(server, INFER, 422, json={"inputs": inputs})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"diversity": 1.5}, "diversity: Input should be less than or equal to 1"),
        ({"explore": -1}, "explore: Input should be greater than or equal to 0"),
        ({"explore": "1"}, "explore: Input should be a valid number"),
        ({"user": {"history": [{"id": "a", "event": "stare"}]}}, "there is no event 'stare'; it must be one of: view"),
        (
            {"user": {"history": [{"id": "a", "event": "rating", "value": 6}]}},
            "user.history.0.value: is 6, and the ratings",
        ),
        ({"user": {"history": ["mug"] * 10_001}}, "at most 10000 items"),
        ({"top_k": 2}, "top_k: is 2, and there are 1 candidates"),
        ({"candidates": []}, "candidates: List should have at least 1 item"),
        ({"candidates": [{"id": "a", "text": "mug"}] * 2}, "candidates: [0] and [1] have the same id, 'a'"),
    ],
)
def test_wrong_options_of_a_ranking(server: Server, options: dict[str, Any], sentence: str) -> None:
    body = {"candidates": [{"id": "a", "text": "mug"}], **options}
    assert sentence in refuse(server, RANK, 422, json=body)["error"]


def test_missing_tensor(server: Server) -> None:
    error = refuse(server, "/v2/models/recommendation/infer", 422, json={"inputs": [tensor(name="history")]})
    assert "candidate" in error["error"]


def test_unknown_output(server: Server) -> None:
    assert "lable" in refuse(server, INFER, 422, json={"inputs": [tensor()], "outputs": [{"name": "lable"}]})["error"]


def binary(size: int, tail: bytes) -> tuple[bytes, int]:
    """A binary request that declares `size` bytes of tensor and carries `tail`; the body and its header's length."""
    described = {k: v for k, v in tensor(parameters={"binary_data_size": size}).items() if k != "data"}
    head = json.dumps({"inputs": [described]}).encode()
    return head + tail, len(head)


WRONG_BINARY = [
    (6, b"\2\0\0\0h"), (5, b"\2\0\0\0h"), (3, b"\1\0\0"), (8, b"\xff\xff\xff\xffhi!!"), (6, b"\2\0\0\0\xff\xfe"),
    (6, b"\2\0\0\0hi, and more"), (-1, b"\2\0\0\0hi"), (0, b""),
]  # fmt: skip


@pytest.mark.parametrize(("size", "tail"), WRONG_BINARY, ids=repr)
def test_wrong_binary_data(server: Server, size: int, tail: bytes) -> None:
    body, length = binary(size, tail)
    refuse(server, INFER, 422, content=body, headers={HEADER_LENGTH: str(length)})


@pytest.mark.parametrize("length", ["100000", "-1", "ten", "1e2", "", "9" * 5000], ids=lambda length: length[:8])
def test_wrong_header_length(server: Server, length: str) -> None:
    body, _ = binary(6, b"\2\0\0\0hi")
    refuse(server, INFER, 422, content=body, headers={HEADER_LENGTH: length})


@pytest.mark.parametrize("model", ["nosuch", "intentx", "intent/versions/999", "intent/versions/%00"])
def test_unknown_model_or_version(server: Server, model: str) -> None:
    for body in (b'{"text": "a"}', b"not json"):
        refuse(server, f"/v2/models/{model}/predict", 404, content=body)


def _chunks(size: int) -> Iterator[bytes]:
    yield b'{"text": "'
    for _ in range(size // 65536):
        yield b"a" * 65536
    yield b'"}'


@pytest.mark.parametrize("size", [MEGABYTE + 65536, 50 * MEGABYTE])
@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_body_over_the_limit(server: Server, path: str, size: int) -> None:
    assert refuse(server, path, 413, content=b"a" * size)["limit"] == MEGABYTE
    assert refuse(server, path, 413, content=_chunks(size))["limit"] == MEGABYTE


UNSUPPORTED = [
    *({"content-type": t} for t in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream")),
    {"content-type": "application/json", "content-encoding": "gzip"},
]


def test_a_body_that_is_declared_not_to_be_encoded_is_answered(server: Server) -> None:
    headers = {"content-encoding": "Identity"}
    assert send(server, PREDICT, json=EXAMPLES["intent"], headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/int%65nt/predict", "/%76%32/models/%69ntent/pr%65dict?a=%20"])
def test_a_percent_encoded_path_is_the_same_path(server: Server, path: str) -> None:
    address = urlsplit(server.url)
    client = HTTPConnection(address.netloc, timeout=30)  # httpx would decode the path
    client.request("POST", path, json.dumps(EXAMPLES["intent"]), {"content-type": "application/json"})
    assert client.getresponse().status == 200
    client.close()


def test_a_text_that_infer_cut_is_named(server: Server) -> None:
    texts = ["where is my order", "where is my order " * 500]
    parameters = send(server, INFER, json={"inputs": [tensor(shape=[2], data=texts)]}).json()["parameters"]
    assert (parameters["truncated"], parameters["truncated_elements"]) == (True, "1")
    assert set(send(server, INFER, json={"inputs": [tensor()]}).json()["parameters"]) == {"prediction_id"}


@pytest.mark.needs_tweak("haproxy", "haproxy_lines")
def test_a_method_without_a_path_is_refused(server: Server) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as client:
        client.sendall(b"OPTIONS * HTTP/1.1\r\nhost: flywheel\r\nconnection: close\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 405 ")
    assert b'"code": "method_not_allowed"' in received


@pytest.mark.parametrize("headers", UNSUPPORTED, ids=repr)
def test_unsupported_media_type(server: Server, headers: dict[str, str]) -> None:
    for path in (PREDICT, INFER, RANK):
        refuse(server, path, 415, content=b'{"text": "a"}', headers=headers)


@pytest.mark.parametrize("abort", [False, True], ids=["close", "reset"])
def test_client_hangs_up_mid_body(server: Server, abort: bool) -> None:
    address = urlsplit(server.url)
    for path in (PREDICT, INFER, RANK):
        with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b'{"text": "where')
            if abort:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(4):  # all replicas get their turn
            assert_still_good(server, path)


@pytest.mark.parametrize("path", [PREDICT, INFER, RANK])
def test_get_where_post_is_due(server: Server, path: str) -> None:
    started = time.perf_counter()
    response = server.get(path)
    assert time.perf_counter() - started < 1
    assert_error(response, 405)
    assert_still_good(server, path)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (422, '{"candidates": []}'),
        (422, '{"candidates": [{"id": "a"}]}'),
        (422, '{"candidates": [{"id": "", "text": "mug"}]}'),
        (422, '{"candidates": [{"id": "a", "text": " "}]}'),
        (422, '{"candidates": [{"id": "a", "text": "mug", "features": {"price": "cheap"}}]}'),
        (400, '{"candidates": [{"id": "a", "text": "mug", "features": {"price": NaN}}]}'),
        (400, '{"candidates": [{"id": "a", "text": "mug", "features": {"price": 1e999}}]}'),
        (422, '{"candidates": [{"id": "a", "text": "mug"}], "top_k": 0}'),
        (422, '{"candidates": [{"id": "a", "text": "mug"}], "user": {"history": [5]}}'),
        (422, '{"candidates": [{"id": "a", "text": "mug"}], "user": null}'),
    ],
)
def test_wrong_ranking_request(server: Server, status: int, body: str) -> None:
    error = refuse(server, RANK, status, content=body)
    assert status == 400 or error["fields"]


def test_a_history_of_ten_thousand_is_answered(server: Server) -> None:
    """Of texts that no model knows, and of ids without a text."""
    history = [f"mug number {n}" if n % 2 else {"id": f"m{n}", "event": "view"} for n in range(10_000)]
    body = {"candidates": [{"id": "a", "text": "mug"}], "user": {"history": history}}
    assert len(send(server, RANK, json=body).json()["predictions"]) == 1


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ({"event": "stare"}, "event: there is no event 'stare'"),
        ({"event": "rating"}, "value: a rating needs a 'value'"),
        ({"event": "rating", "value": -0.5}, "value: the value of a rating is -0.5; it must be its number of stars"),
        ({"event": "dwell", "value": -1}, "value: the value of a dwell is -1"),
        ({"event": "click", "value": 1}, "value: a click has no 'value'"),
        ({"event": "rating", "value": "5"}, "value: Input should be a valid number"),
    ],
)
def test_wrong_feedback_on_a_ranking(server: Server, event: dict[str, Any], sentence: str) -> None:
    body = {"id": "an answer", "item_id": "an item", **event}
    assert sentence in refuse(server, "/v2/models/recommendation/feedback", 422, json=body)["error"]


def test_too_many_candidates(server: Server) -> None:
    candidates = [{"id": str(i), "text": "camping mug"} for i in range(300)]
    assert "128" in refuse(server, RANK, 422, json={"candidates": candidates})["error"]


@pytest.mark.parametrize(
    "body",
    [
        '{"candidates": [{"id": "z", "id": "a", "text": "mug"}]}',
        '{"candidates": [{"id": "a", "text": "mug", "features": {"price": 1e308, "stock": -1e308}}]}',
    ],
    ids=["duplicate keys", "huge features"],
)
def test_odd_ranking_request_is_answered(server: Server, body: str) -> None:
    predictions = send(server, RANK, content=body).json()["predictions"]
    assert {prediction["id"] for prediction in predictions} == {"a"}
    assert all(0 <= prediction["score"] <= 1 for prediction in predictions)


# Lone surrogates included: json.dumps writes them as escapes.
scalar = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=20)
anything = st.recursive(scalar, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
KEYS = (
    "text",
    "texts",
    "topic",
    "published",
    "document_id",
    "documents",
    "user",
    "candidates",
    "top_k",
    "id",
    "parameters",
    "inputs",
    "outputs",
)
TENSOR_KEYS = ("name", "shape", "datatype", "data", "parameters", "features")
names = st.sampled_from(["text", "candidate", "history", "candidate_id", "BYTES", "label", "id"])
element = st.fixed_dictionaries({}, optional=dict.fromkeys((*TENSOR_KEYS, "id", "text"), names | anything))
nearly = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, names | anything | st.lists(element, max_size=3)))


@pytest.mark.parametrize("endpoint", ["predict", "infer"])
@pytest.mark.parametrize("task", TASKS)
def test_fuzz_never_meets_a_server_error(server: Server, task: str, endpoint: str) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:

        @settings(max_examples=100, deadline=None)
        @given(anything | nearly)
        def try_it(value: object) -> None:
            response = client.post(f"/v2/models/{task}/{endpoint}", content=json.dumps(value))
            if response.status_code != 200:
                assert response.status_code in (400, 422), response.text
                assert_error(response, response.status_code)

        try_it()
    assert_still_good(server, f"/v2/models/{task}/{endpoint}")


def test_port_taken(trained_home: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = flywheel("up", "--port", str(port), home=trained_home)
    assert result.returncode == 1
    assert str(port) in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
