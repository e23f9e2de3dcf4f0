"""The result of a detector."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Kind = Literal["iban", "email", "card", "ip", "id", "wallet", "secret", "phone", "account", "name"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In order of rank: the first kind among overlapping matches is that of the placeholder."""


class Found(NamedTuple):
    """Personal data at `text[start:end]`."""

    kind: Kind
    start: int
    end: int
