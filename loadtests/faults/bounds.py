"""What each fault may do at most. Written before anything was measured; a bound does not follow a result."""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS = 32
DEADLINE_S = 10.0
"""of every predict, in its header and in the server's configuration (`limits.deadline_s`)"""
SLOW_S = 1.0
"""a predict that takes longer shows that the server is not back to normal"""
STORE_AWAY_S = 60.0


@dataclass(frozen=True)
class Bound:
    """Upper bounds of one fault; None: no bound.

    `failed` is the number of predicts without an answer 200, `failing_s` the time from the first of them to the last,
    `longest_s` the longest wait for an answer. `normal_s` counts from the fault, or from its end where it has one:
    see `Measurement.normal_s`. `lost` is the number of accepted corrections that are not in the store.
    """

    failed: int | None = 0
    failing_s: float | None = None
    longest_s: float | None = DEADLINE_S
    normal_s: float | None = None
    lost: int | None = 0
    feedback: frozenset[int] = frozenset({202})
    """statuses that a correction may be answered with"""


_AWAY = frozenset({202, 503})

# The table of docs/faults.md, as the operators of the product asked for it.
DEMANDED: dict[str, Bound] = {
    "replica-killed": Bound(normal_s=20, feedback=_AWAY),
    "replica-frozen": Bound(normal_s=20, feedback=_AWAY),
    "haproxy-killed": Bound(failed=None, failing_s=3, normal_s=3, feedback=frozenset({0, 202, 503})),
    "manager-killed": Bound(normal_s=30),
    "controller-killed": Bound(normal_s=30),
    "store-killed": Bound(normal_s=10, feedback=_AWAY),
    "store-frozen": Bound(normal_s=10, feedback=_AWAY),
    "disk-full": Bound(normal_s=10, feedback=_AWAY),
    "promotion": Bound(),
    "rollback": Bound(),
    "rolling-restart": Bound(feedback=_AWAY),
}

# Faults for which nobody demanded a figure; the bounds are those of their relatives above.
OURS: dict[str, Bound] = {
    # The server ends and a supervisor starts it again: clients are refused meanwhile.
    "raylet-killed": Bound(failed=None, failing_s=60, longest_s=None, normal_s=60, feedback=frozenset({0, 202, 503})),
    "retraining-killed": Bound(normal_s=60),
    "disk-slow": Bound(normal_s=10, feedback=_AWAY),
    "clock-forward": Bound(normal_s=10, feedback=_AWAY),
    "clock-back": Bound(normal_s=10, feedback=_AWAY),
    "descriptors": Bound(normal_s=20, feedback=_AWAY),
    "memory": Bound(normal_s=20, feedback=_AWAY),
}

BOUNDS = DEMANDED | OURS
