"""What is taken of a client's request id and traceparent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve.request_context import safe_request_id, trace_id_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("header", [b"a", b"x" * 128, b"9f1c-11ee:7/2+3=_~.", b"0b8d3a1e-6c2f-4a53-9f6e-2d4f1c0a7b11"])
def test_a_safe_request_id_is_taken(header: bytes) -> None:
    assert safe_request_id(header) == header.decode()


@pytest.mark.parametrize(
    "header",
    [None, b"", b"x" * 129, b"two words", b"a\nb", b"a\r\nx: y", b'"quoted"', b"{json}", b"<b>", b"\xc3\xa9",
     b"a@b.example", b"a\x00"],
)  # fmt: skip
def test_an_unsafe_request_id_is_not_taken(header: bytes | None) -> None:
    assert safe_request_id(header) is None


def test_the_trace_id_of_a_traceparent() -> None:
    assert trace_id_of(GOOD.encode()) == TRACE
    assert trace_id_of(f"cc-{TRACE}-{SPAN}-01-of-a-later-version".encode()) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "", "00", GOOD.upper(), f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"{GOOD}-more", f" {GOOD}", f"{GOOD}\n", f"00-{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}-{SPAN}-1", "é" * 55,
        "-" * 4000,
    ],
)  # fmt: skip
def test_a_malformed_traceparent_is_ignored(header: str) -> None:
    assert trace_id_of(header.encode()) == ""


_ALMOST = st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?")


@given(st.one_of(st.binary(max_size=80), _ALMOST.map(str.encode)))
def test_what_is_taken_is_what_opentelemetry_takes(header: bytes) -> None:
    carrier = {"traceparent": header.decode("latin-1")}
    span = get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    if trace_id := trace_id_of(header):
        assert f"{span.trace_id:032x}" == trace_id
