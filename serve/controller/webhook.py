"""Sends opinion alerts to one configured address, in the format of Alertmanager's webhook (version 4).

A thread of its own takes what is pending from an outbox, sends one message at a time, and marks what the receiver
answered with 2xx. Everything is sent at least once: a receiver drops what it has already got by the alert's
`fingerprint`, `startsAt` and `status`. The firing of an alert is sent before its end.

serve/receiver.py says to which addresses. The name is resolved once for each message, and the connection goes to what
was checked. Redirects are failures.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol
from urllib.parse import quote

from serve.receiver import Receiver, may_be_sent_to

log = logging.getLogger("flywheel.webhook")

SIGNATURE_HEADER = "X-Flywheel-Signature"
ALERT_NAME = "OpinionNegativeSurge"
_EVERY_S = 5.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 600.0
_GIVE_UP_S = 86_400.0
_NO_END = "0001-01-01T00:00:00Z"  # as Alertmanager writes the end of an alert that is firing

State = Literal["firing", "resolved"]
Outcome = Literal["sent", "failed", "refused", "given_up"]


@dataclass(frozen=True)
class Alert:
    """A state of an alert that the receiver has not been told yet."""

    id: str
    state: State
    task: str
    topic: str
    kind: str
    started: datetime
    ended: datetime | None
    """None while it is firing"""
    observed: int
    expected: float
    score: float
    examples: tuple[str, ...] = ()
    """ids of documents"""


class Outbox(Protocol):
    """Where alerts wait until the receiver has them."""

    def pending(self) -> list[Alert]:
        """The states that were not marked, oldest first; of one alert, the firing before the end."""

    def mark(self, alert_id: str, state: State) -> None:
        """The receiver has this state, or never will: it is not pending any more."""


class WebhookError(Exception):
    """A message that was not delivered. The text is for the operator."""


class AddressRefused(WebhookError):
    """The address is not one that messages are sent to."""


class MessageRefused(WebhookError):
    """The receiver refused this message (4xx); others may be taken."""


def check_addresses(host: str, addresses: Iterable[str]) -> list[str]:
    """`addresses`, to which the receiver's `host` resolved. Raises AddressRefused for one that is not sent to."""
    found = list(addresses)
    for address in found:
        if not may_be_sent_to(host, address):
            raise AddressRefused(
                f"{host} resolves to {address}, which is not public; a webhook is sent to none of these."
            )
    if not found:
        raise AddressRefused(f"{host} resolves to no address.")
    return found


def signature(secret: str, at: int, body: bytes) -> str:
    """The value of `X-Flywheel-Signature`: "t=<epoch seconds>,v1=<hex HMAC-SHA256 of "<epoch seconds>.<body>">"."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def message(alert: Alert, external_url: str) -> bytes:
    """The body for one state of an alert: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config."""
    group = {"alertname": ALERT_NAME, "topic": alert.topic}
    labels = {**group, "kind": alert.kind, "severity": "warning", "task": alert.task}
    annotations = {
        "summary": f"Negative stories about {alert.topic} surge",
        "description": f"{alert.observed} negative stories about {alert.topic} where {alert.expected:.1f} are usual "
        f"(since {_time(alert.started)}).",
        "observed": str(alert.observed),
        "expected": f"{alert.expected:.2f}",
        "score": f"{alert.score:.1f}",
        "examples": ", ".join(alert.examples),
    }
    base = external_url.rstrip("/")
    sent = {
        "status": alert.state,
        "labels": labels,
        "annotations": annotations,
        "startsAt": _time(alert.started),
        "endsAt": _time(alert.ended) if alert.state == "resolved" and alert.ended else _NO_END,
        "generatorURL": f"{base}/v2/opinion/alerts?topic={quote(alert.topic, safe='')}",
        "fingerprint": hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16],
    }
    group_key = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in group.items())
    body = {
        "version": "4",
        "groupKey": f"{{}}:{{{group_key}}}",
        "truncatedAlerts": 0,
        "status": alert.state,
        "receiver": "flywheel",
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": base,
        "alerts": [sent],
    }
    return json.dumps(body, ensure_ascii=False).encode()


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def post(receiver: Receiver, body: bytes) -> None:
    """Send one message. Raises WebhookError when the receiver did not answer with 2xx within `timeout_s`."""
    status = _status(receiver, body, time.monotonic() + receiver.timeout_s)
    if 300 <= status < 400:
        raise WebhookError(f"{receiver.host} redirects ({status}). Configure the address that it redirects to.")
    if 400 <= status < 500 and status not in (408, 429):
        raise MessageRefused(f"{receiver.host} refused the message with {status}.")
    if not 200 <= status < 300:
        raise WebhookError(f"{receiver.host} answered {status}.")


def _status(receiver: Receiver, body: bytes, ends: float) -> int:
    """What the receiver answers before `ends`. Raises WebhookError if it does not."""
    headers = {"Content-Type": "application/json", "User-Agent": "Flywheel", "Connection": "close"}
    if receiver.secret:
        headers[SIGNATURE_HEADER] = signature(receiver.secret, int(time.time()), body)
    try:
        connection = _connect(receiver, ends)
    except OSError as error:  # names that do not resolve are OSErrors, too
        raise WebhookError(f"No connection to {receiver.host}: {error}") from error
    # The socket's own timeout is for each read: a receiver that sends a byte a second would hold us for hours.
    end = threading.Timer(max(0.0, ends - time.monotonic()), _shut, [connection.sock])
    end.daemon = True
    end.start()
    try:
        if isinstance(connection.sock, ssl.SSLSocket):
            connection.sock.do_handshake()
        connection.request("POST", receiver.target, body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:  # certificates that do not verify are OSErrors, too
        late = time.monotonic() >= ends
        said = f"no answer within {receiver.timeout_s:g} s" if late else str(error) or type(error).__name__
        raise WebhookError(f"{receiver.host}: {said}") from error
    finally:
        end.cancel()
        connection.close()


def _connect(receiver: Receiver, ends: float) -> http.client.HTTPConnection:
    """A connection to one of the addresses that were checked; for https, before the handshake."""
    found = socket.getaddrinfo(receiver.host, receiver.port, type=socket.SOCK_STREAM)
    addresses = check_addresses(receiver.host, (str(entry[4][0]) for entry in found))
    failed: OSError = OSError("no address")
    for address in addresses:
        left = max(0.1, ends - time.monotonic())
        try:
            plain = socket.create_connection((address, receiver.port), timeout=left)
        except OSError as error:
            failed = error
            continue
        connection = http.client.HTTPConnection(receiver.host, receiver.port)
        connection.sock = plain
        if receiver.parts.scheme == "https":
            connection.default_port = 443  # so that the Host header has no port
            connection.sock = ssl.create_default_context().wrap_socket(
                plain, server_hostname=receiver.host, do_handshake_on_connect=False
            )
        return connection
    raise failed


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed meanwhile
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # that of an SSLSocket would go on without encryption


@dataclass
class _Attempts:
    """The failures of one message, in the clock of the webhook."""

    since: float
    failures: int = 0
    next: float = -math.inf

    def failed(self, now: float) -> None:
        self.next = now + min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0**self.failures)
        self.failures = min(self.failures + 1, 30)


class Webhook:
    """Sends what is pending in the outbox, in a thread of its own; nobody waits for it.

    A message that fails is sent again after 1, 2, 4, ... 600 s, for a day, or until the process ends: its successor
    begins anew. While the receiver fails, other messages wait as well; a message that it refuses (4xx) holds up
    nothing but the end of the same alert.

    `clock` gives seconds, monotonic. `outcome` is called for each message: sent, failed (and will be tried again),
    refused (the address is not allowed), given_up.
    """

    def __init__(
        self,
        receiver: Receiver,
        outbox: Outbox,
        external_url: str,
        outcome: Callable[[Outcome], None] = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._receiver, self._outbox, self._external_url = receiver, outbox, external_url
        self._outcome, self._clock = outcome, clock
        self._attempts: dict[tuple[str, State], _Attempts] = {}
        self._unmarked: set[tuple[str, State]] = set()
        """that the receiver has, and the outbox could not mark: with a full disk, they would go out for hours"""
        self._receiver_attempts: _Attempts | None = None
        self._wake, self._stopped = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more after the message that is under way. Does not wait."""
        self._stopped = True
        self._wake.set()

    def notify(self) -> None:
        """Something may be pending. Returns at once."""
        self._wake.set()

    def _work(self) -> None:
        while not self._stopped:
            try:
                self.step()
            except Exception:
                log.exception("The webhook will try again: the alerts could not be read or marked")
            self._wake.wait(_EVERY_S if not self._attempts else _FIRST_PAUSE_S)
            self._wake.clear()

    def step(self) -> None:
        """Send each pending message whose time has come. Raises what the outbox raises."""
        pending = self._outbox.pending()
        self._forget([(alert.id, alert.state) for alert in pending])
        held: set[str] = set()
        for alert in pending:
            if self._stopped or (self._receiver_attempts and self._clock() < self._receiver_attempts.next):
                return
            attempts = self._attempts.get((alert.id, alert.state))
            if alert.id in held or (attempts and self._clock() < attempts.next) or not self._deliver(alert):
                held.add(alert.id)

    def _forget(self, pending: list[tuple[str, State]]) -> None:
        for key in self._attempts.keys() - set(pending):
            del self._attempts[key]
        self._unmarked &= set(pending)

    def _deliver(self, alert: Alert) -> bool:
        """Whether the message is no longer pending."""
        key = alert.id, alert.state
        if key not in self._unmarked:
            try:
                post(self._receiver, message(alert, self._external_url))
            except WebhookError as error:
                return self._failed(alert, error)
            if self._receiver_attempts:
                log.warning("The webhook's receiver takes alerts again.")
            self._receiver_attempts = None
            self._attempts.pop(key, None)
            self._unmarked.add(key)
            self._outcome("sent")
        self._outbox.mark(*key)
        self._unmarked.discard(key)
        return True

    def _failed(self, alert: Alert, error: WebhookError) -> bool:
        key, now = (alert.id, alert.state), self._clock()
        attempts = self._attempts.setdefault(key, _Attempts(now))
        if not attempts.failures:  # once for each message, not at each of its attempts
            log.warning("The alert about %s (%s) was not delivered, and will be: %s", alert.topic, alert.state, error)
        attempts.failed(now)
        if not isinstance(error, MessageRefused):
            self._receiver_attempts = self._receiver_attempts or _Attempts(now)
            self._receiver_attempts.failed(now)
        if now - attempts.since < _GIVE_UP_S:
            self._outcome("refused" if isinstance(error, AddressRefused) else "failed")
            return False
        log.error("The alert about %s (%s) is given up after a day: %s", alert.topic, alert.state, error)
        self._outbox.mark(*key)
        del self._attempts[key]
        self._outcome("given_up")
        return True
