"""Admission control: the longest estimated wait with which a request is accepted."""

from __future__ import annotations

import math

# The estimate is a mean, so some waits are longer. Past this many times the target, too much was accepted.
_LATE = 1.25
_CUT = 0.9
_CUT_EVERY = 0.1  # of the target: what was let in before a cut is late for about a target's time
_MIN_SHARE = 0.25
_REGAINED_A_SECOND = 0.03
# Where even the shortest text would wait for all of the bound but this share, the replica is full, and for this share
# of the target a proxy may refuse in its place: the queue is long enough to lose nothing by it. Not where many texts
# are cached, for those are answered however full the replica is.
_UNSEEN = 0.1
_MAX_UNSEEN_S = 0.5
_FEW = 0.05
_DECAY = 0.02  # of those seen before, with each request


class Admission:
    """The bound on the estimated wait: `target_s`, and less while accepted requests wait longer than that.

    What an estimate cannot know (a machine that slows down, shorter texts that go first, a core that refusals take)
    shows in the waits themselves. The bound is cut as TCP cuts its window, by a share at once, and regained a little at
    a time (docs/decisions/0010-batching.md).
    """

    def __init__(self, target_s: float):
        self._target_s = target_s
        self._share = 1.0
        self._cached_share = 0.0  # of the requests that came lately while there was much to do
        self._seen = self._cut = -math.inf  # times on the clock of time.monotonic

    @property
    def bound_s(self) -> float:
        """Seconds; a request whose estimated wait is longer is to be refused."""
        return self._share * self._target_s

    def arrived(self, *, cached: bool) -> None:
        """Note a request that arrived while much was queued; `cached`: the model need not run for it."""
        self._cached_share += _DECAY * (cached - self._cached_share)

    def full_s(self, min_wait_s: float) -> float:
        """Seconds for which a proxy may refuse all requests, when the shortest text would wait `min_wait_s`."""
        if min_wait_s < (1 - _UNSEEN) * self.bound_s or self._cached_share > _FEW:
            return 0.0
        return min(_UNSEEN * self._target_s, _MAX_UNSEEN_S)

    def observe_wait(self, seconds: float, now: float) -> None:
        """The model began at `now` with a request that had waited for `seconds`."""
        self._share = min(1.0, self._share + (now - self._seen) * _REGAINED_A_SECOND)
        self._seen = now
        if seconds > _LATE * self._target_s and now - self._cut >= _CUT_EVERY * self._target_s:
            self._share = max(_MIN_SHARE, self._share * _CUT)
            self._cut = now
