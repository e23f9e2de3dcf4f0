"""Ids of predictions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator


def new_id() -> str:
    """32 hexadecimal digits: 12 of the time in milliseconds, so that ids sort by time, and 20 random ones."""
    return f"{time.time_ns() // 1_000_000:012x}{next(_random)}"


def _random_digits() -> Iterator[str]:
    """20 random digits at a time, from the system's generator: anyone who guesses an id can correct its prediction."""
    while True:
        digits = os.urandom(10 * 256).hex()  # one system call for 256 ids
        yield from (digits[at : at + 20] for at in range(0, len(digits), 20))


_random = _random_digits()
