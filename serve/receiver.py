"""The address that the webhook sends alerts to. The configuration checks it, so it stands below it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit


@dataclass(frozen=True)
class Receiver:
    """Where messages go. Raises ValueError for an address that is neither https nor on this machine."""

    url: str
    secret: str | None = None
    """signs the messages: see `signature`"""
    timeout_s: float = 10.0
    """of a whole message: connection, TLS, answer"""

    def __post_init__(self) -> None:
        parts, problem = self.parts, None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            problem = "it must be https://HOST/PATH"
        elif parts.scheme == "http" and not is_loopback(parts.hostname):
            problem = "use https: http is for a receiver on this machine"
        elif parts.username is not None or parts.password is not None:
            problem = "leave out the user and the password; messages are signed with the secret"
        if problem:
            raise ValueError(f"The webhook's address cannot be used: {problem}.")

    @property
    def parts(self) -> SplitResult:
        try:
            parts = urlsplit(self.url)
            parts.port  # noqa: B018  raises ValueError
            (parts.hostname or "").encode("idna")  # as the resolver will; UnicodeError is a ValueError
        except ValueError as error:
            raise ValueError(f"The webhook's address cannot be read: {error}.") from error
        return parts

    @property
    def host(self) -> str:
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        return self.parts.port or (443 if self.parts.scheme == "https" else 80)

    @property
    def target(self) -> str:
        """Path and query of the request."""
        kept = "/?%:@!$&'()*+,;=~"
        query = f"?{quote(self.parts.query, safe=kept)}" if self.parts.query else ""
        return quote(self.parts.path or "/", safe=kept) + query


def is_loopback(host: str) -> bool:
    """Whether the name itself says that it is this machine, whatever it resolves to."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
