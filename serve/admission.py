"""How long a request may expect to wait before it is turned away: no longer than can be kept."""

from __future__ import annotations

import math

# A wait is guessed by the mean, so some are longer. Past this many times the target too much was let in.
_LATE = 1.25
_CUT = 0.9
_CUT_EVERY = 0.1  # of the target: what was let in before a cut is late for about a target's time
_LEAST = 0.25
_REGAINED_A_SECOND = 0.03


class Admission:
    """The bound on a wait that is guessed: `target_s`, less while those let in wait longer than that.

    What a guess cannot know (a machine that slows down, shorter texts that go first, a core that refusals take) shows
    in the waits themselves. Cut as TCP cuts its window, by a share at once, and regained a little at a time
    (docs/decisions/0010-batching.md).
    """

    def __init__(self, target_s: float):
        self._target_s = target_s
        self._share = 1.0
        self._seen = self._cut = -math.inf  # times on the clock of time.monotonic

    @property
    def bound_s(self) -> float:
        """A request whose wait is guessed to be longer is to be refused."""
        return self._share * self._target_s

    def waited(self, seconds: float, now: float) -> None:
        """At `now` the model began with a request that had waited for `seconds`."""
        self._share = min(1.0, self._share + (now - self._seen) * _REGAINED_A_SECOND)
        self._seen = now
        if seconds > _LATE * self._target_s and now - self._cut >= _CUT_EVERY * self._target_s:
            self._share = max(_LEAST, self._share * _CUT)
            self._cut = now
