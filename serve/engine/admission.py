"""Admission control: the longest estimated wait with which a request is accepted."""

from __future__ import annotations

import math

# The estimate is a mean, so some waits exceed it. A wait of more than this many times the target cuts the bound.
_LATE_FACTOR = 1.25
_CUT_FACTOR = 0.9
_CUT_INTERVAL = 0.1  # in targets: requests admitted before a cut stay late for about one target
_MIN_SHARE = 0.25
_REGAINED_PER_SECOND = 0.03
# When even the shortest text would wait for the bound less this share, the replica is full, and a proxy may refuse in
# its place for this share of the target: the queue is long enough to keep the model busy meanwhile. Not when many
# requests are cache hits or answered early, which a full replica answers too: then only while its event loop is this
# late, and for as long as that.
_FULL_MARGIN = 0.1
_MAX_FULL_S = 0.5
_MAX_CACHED_SHARE = 0.05
_LATE_LOOP_S = 0.01
# A request waits in its socket, unseen, for as long as it waits for its turn once it has been read. A single large
# request, or a batch on the event loop, delays the next one and is no overload.
_WAITS_PER_LAG = 2
_MIN_TOO_LATE_S = 0.5
_DECAY = 0.02  # weight of the newest request in the share of cache hits


class Admission:
    """The bound on the estimated wait: `target_s`, lowered while admitted requests wait longer than that.

    Measured waits include what the estimate misses: a machine that slows down, shorter texts that overtake, a core that
    is busy with refusals. As in TCP congestion control, a cut is multiplicative and the recovery gradual
    (docs/decisions/0010-batching.md).
    """

    def __init__(self, target_s: float):
        self._target_s = target_s
        self._share = 1.0
        self._cached_share = 0.0  # of recent requests
        self._lag_s = 0.0
        self._last_wait_at = self._last_cut_at = -math.inf  # in time.monotonic

    @property
    def bound_s(self) -> float:
        """Seconds; a request with a longer estimated wait must be refused."""
        return self._share * self._target_s

    def arrived(self, *, cached: bool) -> None:
        """Record a request; `cached`: the encoder need not run for it. At least each that arrives under load."""
        self._cached_share += _DECAY * (cached - self._cached_share)

    def full_s(self, min_wait_s: float) -> float:
        """Seconds for which a proxy may refuse all requests, when the shortest text would wait `min_wait_s`."""
        if min_wait_s < (1 - _FULL_MARGIN) * self.bound_s:
            return 0.0
        if self._cached_share > _MAX_CACHED_SHARE:
            return min(self._lag_s, _MAX_FULL_S) if self._lag_s >= _LATE_LOOP_S else 0.0
        return min(_FULL_MARGIN * self._target_s, _MAX_FULL_S)

    def observe_lag(self, seconds: float) -> None:
        """Record that the event loop handled a request so many `seconds` after it had read it."""
        self._lag_s = seconds

    def late_s(self) -> float:
        """Seconds for which a proxy may refuse all requests, since the event loop cannot handle them in time; or 0."""
        if _WAITS_PER_LAG * self._lag_s <= max(self.bound_s, _MIN_TOO_LATE_S):
            return 0.0
        return min(self._lag_s, _MAX_FULL_S)

    def observe_wait(self, seconds: float, now: float) -> None:
        """Record that the model started a request at `now` which had been queued for `seconds`."""
        self._share = min(1.0, self._share + (now - self._last_wait_at) * _REGAINED_PER_SECOND)
        self._last_wait_at = now
        if seconds > _LATE_FACTOR * self._target_s and now - self._last_cut_at >= _CUT_INTERVAL * self._target_s:
            self._share = max(_MIN_SHARE, self._share * _CUT_FACTOR)
            self._last_cut_at = now
