"""The webhook, against real receivers on loopback that fail in the ways of real ones."""

from __future__ import annotations

import hmac
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from serve.controller.webhook import (
    AddressRefused,
    Alert,
    MessageRefused,
    State,
    Webhook,
    WebhookError,
    check_addresses,
    message,
    post,
)
from serve.receiver import Receiver
from tests.helpers.waiting import eventually

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
FIRING = Alert("7", "firing", "sentiment", "airlines", "negative_surge", AT, None, 42, 3.5, 17.25, ("a/0", "b"))
RESOLVED = replace(FIRING, state="resolved", ended=datetime(2026, 3, 2, 13, tzinfo=UTC))


class Outbox:
    """What is pending in memory."""

    def __init__(self, *alerts: Alert):
        self.alerts, self.marked = list(alerts), list[tuple[str, State]]()

    def pending(self) -> list[Alert]:
        return [alert for alert in self.alerts if (alert.id, alert.state) not in self.marked]

    def mark(self, alert_id: str, state: State) -> None:
        self.marked.append((alert_id, state))


@dataclass
class Got:
    """The requests that a receiver got."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def states(self) -> list[tuple[str, str]]:
        """Topic and state of each message."""
        messages = [json.loads(body) for body in self.bodies]
        return [(sent["groupLabels"]["topic"], sent["status"]) for sent in messages]


Answer = Callable[[BaseHTTPRequestHandler, Got], None]


def status(*codes: int, headers: dict[str, str] | None = None) -> Answer:
    """Answers the codes in turn, the last one for good."""

    def answer(handler: BaseHTTPRequestHandler, got: Got) -> None:
        handler.send_response(codes[min(len(got.bodies), len(codes)) - 1])
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@contextmanager
def receiver(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[Got]:
    got = Got()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            got.headers.append(dict(self.headers))
            got.paths.append(self.path)
            answer(self, got)

        def do_GET(self) -> None:
            got.paths.append(f"GET {self.path}")

        def log_message(self, *of: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # clients that went away are what these tests are about

    server = Server(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    got.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}/alerts?key=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield got
    finally:
        server.shutdown()
        server.server_close()


def test_a_message_is_alertmanagers() -> None:
    sent = json.loads(message(RESOLVED, "http://server:8000/"))
    assert set(sent) == {
        "version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
        "commonAnnotations", "externalURL", "alerts",
    }  # fmt: skip
    assert (sent["version"], sent["status"], sent["truncatedAlerts"]) == ("4", "resolved", 0)
    assert sent["groupKey"] == '{}:{alertname="OpinionNegativeSurge", topic="airlines"}'
    [alert] = sent["alerts"]
    assert set(alert) == {
        "status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint"
    }  # fmt: skip
    assert (alert["startsAt"], alert["endsAt"]) == ("2026-03-02T09:00:00Z", "2026-03-02T13:00:00Z")
    assert alert["generatorURL"] == "http://server:8000/v2/opinion/alerts?topic=airlines"
    assert alert["annotations"]["examples"] == "a/0, b"
    assert all(isinstance(value, str) for value in (*alert["labels"].values(), *alert["annotations"].values()))
    [firing] = json.loads(message(FIRING, ""))["alerts"]
    assert firing["endsAt"] == "0001-01-01T00:00:00Z"
    assert firing["fingerprint"] == alert["fingerprint"]
    [other] = json.loads(message(replace(FIRING, topic='a "b" 汽车'), ""))["alerts"]
    assert other["fingerprint"] != alert["fingerprint"]


def test_a_message_is_signed() -> None:
    """As docs/opinion.md says how to verify it."""
    with receiver(status(200)) as got:
        post(Receiver(got.url, "s3cret"), message(FIRING, ""))
    signed = dict(part.split("=", 1) for part in got.headers[0]["X-Flywheel-Signature"].split(","))
    expected = hmac.new(b"s3cret", signed["t"].encode() + b"." + got.bodies[0], "sha256").hexdigest()
    assert hmac.compare_digest(signed["v1"], expected)
    assert abs(int(signed["t"]) - time.time()) < 60
    assert got.paths == ["/alerts?key=1"]
    assert got.headers[0]["Content-Type"] == "application/json"


def test_states_are_sent_in_order_and_once() -> None:
    other = replace(FIRING, id="8", topic="banks")
    outbox, outcomes = Outbox(FIRING, other, RESOLVED), list[str]()
    with receiver(status(200)) as got:
        webhook = Webhook(Receiver(got.url), outbox, "", outcomes.append)
        webhook.start()
        eventually(lambda: not outbox.pending(), 5)
        webhook.stop()
    assert got.states == [("airlines", "firing"), ("banks", "firing"), ("airlines", "resolved")]
    assert outcomes == ["sent"] * 3


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_receiver_that_fails_three_times_gets_the_message_in_growing_pauses() -> None:
    outbox, clock, outcomes, times = Outbox(FIRING, RESOLVED), Clock(), list[str](), list[float]()
    with receiver(status(500, 503, 429, 200)) as got:
        webhook = Webhook(Receiver(got.url), outbox, "", outcomes.append, clock)
        while outbox.pending() and clock.now < 60:
            before = len(got.bodies)
            webhook.step()
            times += [clock.now] * (len(got.bodies) - before)
            clock.now += 0.5
    assert times == [0.0, 1.0, 3.0, 7.0, 7.0]
    assert got.states == [("airlines", "firing")] * 4 + [("airlines", "resolved")]
    assert outcomes == ["failed"] * 3 + ["sent"] * 2


def test_a_refused_message_holds_up_only_its_own_alert() -> None:
    other = replace(FIRING, id="8", topic="banks")
    outbox, clock = Outbox(FIRING, RESOLVED, other), Clock()
    with receiver(status(400, 200)) as got:
        webhook = Webhook(Receiver(got.url), outbox, "", clock=clock)
        webhook.step()
        assert got.states == [("airlines", "firing"), ("banks", "firing")]
        clock.now = 2.0
        webhook.step()
    assert got.states[2:] == [("airlines", "firing"), ("airlines", "resolved")]


def test_a_message_is_given_up_after_a_day() -> None:
    outbox, clock, outcomes = Outbox(FIRING), Clock(), list[str]()
    with receiver(status(500)) as got:
        webhook = Webhook(Receiver(got.url), outbox, "", outcomes.append, clock)
        while outbox.pending() and clock.now < 2 * 86_400:
            webhook.step()
            clock.now += 7200
    assert clock.now - 7200 == 86_400
    assert outcomes == ["failed"] * 12 + ["given_up"]
    assert len(got.bodies) == 13


def test_a_store_that_takes_no_marks_makes_no_flood_of_messages() -> None:
    """One a process, which is at least once; as with a disk that is full for hours."""

    class Failing(Outbox):
        failures = 3

        def mark(self, alert_id: str, state: State) -> None:
            if self.failures:
                self.failures -= 1
                raise OSError("disk")
            super().mark(alert_id, state)

    outbox, outcomes = Failing(FIRING, RESOLVED), list[str]()
    with receiver(status(200)) as got:
        for process in range(2):
            webhook = Webhook(Receiver(got.url), outbox, "", outcomes.append)
            for _ in range(2 - process):
                with pytest.raises(OSError, match="disk"):
                    webhook.step()
        webhook.step()
    assert got.states == [("airlines", "firing")] * 2 + [("airlines", "resolved")]
    assert outbox.marked == [("7", "firing"), ("7", "resolved")]
    assert outcomes == ["sent"] * 3


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/", "SELF"])
def test_redirects_are_not_followed(to: str) -> None:
    with receiver(status(200)) as other:
        location = other.url if to == "SELF" else to
        for code in (301, 302, 307, 308):
            with (
                receiver(status(code, headers={"Location": location})) as got,
                pytest.raises(WebhookError, match="redirects"),
            ):
                post(Receiver(got.url), b"{}")
            assert len(got.paths) == 1
    assert not other.paths


def test_a_receiver_that_hangs_is_left_in_time() -> None:
    release = threading.Event()
    with receiver(lambda handler, got: release.wait(10) and None) as got:
        begun = time.monotonic()
        with pytest.raises(WebhookError, match=r"no answer within 0\.3 s"):
            post(Receiver(got.url, timeout_s=0.3), b"{}")
        assert time.monotonic() - begun < 2
        release.set()


def test_a_receiver_that_sends_a_byte_at_a_time_is_left_in_time() -> None:
    def drip(handler: BaseHTTPRequestHandler, got: Got) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.05)

    with receiver(drip) as got:
        begun = time.monotonic()
        with pytest.raises(WebhookError, match=r"no answer within 0\.3 s"):
            post(Receiver(got.url, timeout_s=0.3), b"{}")
        assert time.monotonic() - begun < 2


def test_a_handshake_that_comes_a_byte_at_a_time_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            with suppress(OSError), listening.accept()[0] as connection:
                connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 kB
                for _ in range(100):
                    connection.sendall(b"\x02")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(WebhookError, match=r"no answer within 0\.3 s"):
            post(Receiver(f"https://127.0.0.1:{listening.getsockname()[1]}/", timeout_s=0.3), b"{}")
        assert time.monotonic() - begun < 2


def test_a_receiver_that_closes_in_the_middle_is_a_failure() -> None:
    def cut(handler: BaseHTTPRequestHandler, got: Got) -> None:
        handler.wfile.write(b"HTTP/1.1 20")
        handler.connection.shutdown(socket.SHUT_RDWR)

    with receiver(cut) as got, pytest.raises(WebhookError):
        post(Receiver(got.url), b"{}")
    with (
        receiver(lambda handler, got: handler.connection.shutdown(socket.SHUT_RDWR)) as got,
        pytest.raises(WebhookError, match="closed"),
    ):
        post(Receiver(got.url), b"{}")


def test_a_receiver_that_is_not_there_is_a_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    with pytest.raises(WebhookError, match="No connection"):
        post(Receiver(url), b"{}")
    with pytest.raises(WebhookError, match="No connection"):
        post(Receiver("https://receiver.invalid/"), b"{}")


def test_refusals_are_told_from_outages() -> None:
    with receiver(status(404)) as got, pytest.raises(MessageRefused, match="404"):
        post(Receiver(got.url), b"{}")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not installed")
def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
    ]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with receiver(status(200), context) as got:
        with pytest.raises(WebhookError, match="certificate"):
            post(Receiver(got.url), b"{}")
        assert not got.bodies
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # as an operator trusts an authority of their own
        post(Receiver(got.url), b"{}")
        assert got.bodies == [b"{}"]
        other_name = got.url.replace("127.0.0.1", "localhost")
        with pytest.raises(WebhookError, match="certificate"):
            post(Receiver(other_name), b"{}")


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/x", "ftp://127.0.0.1/", "hooks.example.org", "https:///x", "", "https://h:99999/",
        "https://user:password@hooks.example.org/", "http://127.0.0.1.example.org/", "http://169.254.169.254/",
        f"https://{'a' * 64}.example.org/", "https://10.0.0.1/", "https://169.254.169.254/", "https://[fe80::1]/",
        "https://0.0.0.0/", "https://[::ffff:10.0.0.1]/",
    ],
)  # fmt: skip
def test_addresses_that_are_refused_in_the_configuration(url: str) -> None:
    with pytest.raises(ValueError, match="webhook's address"):
        Receiver(url)


@pytest.mark.parametrize("url", ["https://hooks.example.org/x?y=1", "http://127.0.0.1:9/", "http://localhost/",
                                 "http://[::1]:8080/a", "https://[2606:4700::1111]/"])  # fmt: skip
def test_addresses_that_are_taken(url: str) -> None:
    Receiver(url)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.3.4", "192.168.1.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1", "2002:101:101::1", "::", "::127.0.0.1", "fec0::1", "64:ff9b:1::a00:1", "5f00::1",
    ],
)  # fmt: skip
def test_names_that_lead_into_a_network_of_ones_own_are_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="not public"):
        check_addresses("hooks.example.org", ["1.1.1.1", address])


def test_public_names_are_taken_and_loopback_names_lead_to_loopback() -> None:
    public = ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
    assert check_addresses("hooks.example.org", public) == public
    assert check_addresses("localhost", ["127.0.0.1", "::1"]) == ["127.0.0.1", "::1"]
    with pytest.raises(AddressRefused):
        check_addresses("localhost", ["10.0.0.1"])


def test_paths_with_other_letters_are_encoded() -> None:
    assert Receiver("https://h.example/ü %20?q=ö b&c=d").target == "/%C3%BC%20%20?q=%C3%B6%20b&c=d"


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0", "0xa000001"])
def test_numbers_that_are_private_addresses_are_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        post(Receiver(f"https://{host}/"), b"{}")


def test_the_secret_is_in_no_text_of_the_receiver() -> None:
    assert "s3cret" not in repr(Receiver("https://hooks.example.org/", "s3cret"))
