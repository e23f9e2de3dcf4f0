"""How long a request may expect to wait before it is turned away: no longer than can be kept."""

from __future__ import annotations

import math

# A wait is guessed by the mean, so some are longer. Past this many times the target too much was let in.
_LATE = 1.25
_CUT = 0.9
_CUT_EVERY = 0.1  # of the target: what was let in before a cut is late for about a target's time
_LEAST = 0.25
_REGAINED_A_SECOND = 0.03
# Where even the shortest text would wait for all of the bound but this share, the replica is full. For so much of the
# target it need not see whom it would refuse: a queue as long loses nothing by getting that much shorter. But who is
# known is answered however full it is, and must be seen if they are not few.
_UNSEEN = 0.1
_LONGEST_UNSEEN_S = 0.5
_FEW = 0.05
_FORGOTTEN = 0.02  # of those seen before, with each request


class Admission:
    """The bound on a wait that is guessed: `target_s`, less while those let in wait longer than that.

    What a guess cannot know (a machine that slows down, shorter texts that go first, a core that refusals take) shows
    in the waits themselves. Cut as TCP cuts its window, by a share at once, and regained a little at a time
    (docs/decisions/0010-batching.md).
    """

    def __init__(self, target_s: float):
        self._target_s = target_s
        self._share = 1.0
        self._known = 0.0  # of the requests that came lately while there was much to do
        self._seen = self._cut = -math.inf  # times on the clock of time.monotonic

    @property
    def bound_s(self) -> float:
        """A request whose wait is guessed to be longer is to be refused."""
        return self._share * self._target_s

    def met(self, *, known: bool) -> None:
        """A request came while there was much to do; the model need not run for it if it is `known`."""
        self._known += _FORGOTTEN * (known - self._known)

    def full_s(self, least_wait_s: float) -> float:
        """For how long all may be refused unseen, when the shortest text would wait for `least_wait_s`; 0 for not."""
        if least_wait_s < (1 - _UNSEEN) * self.bound_s or self._known > _FEW:
            return 0.0
        return min(_UNSEEN * self._target_s, _LONGEST_UNSEEN_S)

    def waited(self, seconds: float, now: float) -> None:
        """At `now` the model began with a request that had waited for `seconds`."""
        self._share = min(1.0, self._share + (now - self._seen) * _REGAINED_A_SECOND)
        self._seen = now
        if seconds > _LATE * self._target_s and now - self._cut >= _CUT_EVERY * self._target_s:
            self._share = max(_LEAST, self._share * _CUT)
            self._cut = now
