"""The ids of answers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator


def new_id() -> str:
    """32 hexadecimal digits: 12 of the time in milliseconds, so that ids sort by it, and 20 at random."""
    return f"{time.time_ns() // 1_000_000:012x}{next(_random)}"


def _random_digits() -> Iterator[str]:
    """20 random digits at a time, of the system's own randomness: who can guess an id can correct its answer."""
    while True:
        digits = os.urandom(10 * 256).hex()  # a system call for many
        yield from (digits[at : at + 20] for at in range(0, len(digits), 20))


_random = _random_digits()
