"""Ids of predictions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator


def new_id() -> str:
    """32 hexadecimal digits: 12 of the time in milliseconds, so that ids sort by time, a 0, and 19 random ones.

    No UUID has a 0 there, its version, so another system's ids are not taken for expired ones (`label_join.made_at`).
    """
    return f"{time.time_ns() // 1_000_000:012x}0{next(_random)}"


def _random_digits() -> Iterator[str]:
    """19 random digits at a time, from the system's generator: anyone who guesses an id can correct its prediction."""
    while True:
        digits = os.urandom(10 * 256).hex()  # one system call for 256 ids
        yield from (digits[at : at + 19] for at in range(0, len(digits), 20))


_random = _random_digits()
