"""The address that the webhook sends alerts to. The configuration checks it, so it stands below it.

It is https, or http on this machine. What its name resolves to must be public, unless the name is a loopback address
itself: a server that can be told to post into its own network reads the metadata of its cloud.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, urlsplit

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # all that is assigned of IPv6
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # its last 32 bits are an IPv4 address


@dataclass(frozen=True)
class Receiver:
    """Where messages go. Raises ValueError for an address that is neither https nor on this machine, or not public."""

    url: str
    secret: str | None = field(default=None, repr=False)
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
        elif _is_literal(parts.hostname) and not may_be_sent_to(parts.hostname, parts.hostname):
            problem = f"{parts.hostname} is not public; a receiver in your own network needs a proxy on this machine"
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
    return host == "localhost" or (_is_literal(host) and ipaddress.ip_address(host).is_loopback)


def may_be_sent_to(host: str, address: str) -> bool:
    """Whether `address`, to which the receiver's `host` resolved, is one that messages are sent to."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return found.is_loopback if is_loopback(host) else _is_public(found)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        if address in _NAT64:
            return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        # Tunnels lead to an IPv4 address that they name.
        if address not in _GLOBAL_UNICAST or address.sixtofour is not None or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast
