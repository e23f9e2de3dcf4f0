"""One fault under load: put it in, wait until all is normal again, and compare what was seen with its bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from loadtests.faults.bounds import Bound
from loadtests.faults.clients import BROKEN, Traffic, traffic
from loadtests.faults.server import RunError, Server, eventually

_WARM_S, _CALM_S = 4.0, 4.0
MAX_S = 90.0  # after the fault has ended; what takes longer is not normal again


class Fault(NamedTuple):
    """A fault that was put in. `since`: the time that `normal_s` counts from; `whole`: whether nothing is missing."""

    since: float
    whole: Callable[[], bool]
    note: str = ""


@dataclass
class Measurement:
    """What clients saw. The fields are those of `Bound`, and what the page shows beside them."""

    name: str
    predicts: int
    statuses: dict[int, int]
    failed: int
    failing_s: float
    longest_s: float
    normal_s: float | None
    """until nothing is missing, and every predict is answered 200 within SLOW_S; None: not within MAX_S"""
    feedback: dict[int, int]
    accepted: int
    lost: int | None
    """accepted corrections that are not in the store; None: the store could not be read"""
    note: str = ""
    missed: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(name: str, bound: Bound, server: Server, put_in: Callable[[Traffic], Fault]) -> Measurement:
    """Run clients, put in the fault, and wait until all is normal, or until it is clear that it will not be."""
    with traffic(server.url) as seen:
        time.sleep(_WARM_S)
        if seen.failed() or not seen.predicts:
            raise RunError(f"{name}: before the fault {len(seen.failed())} of {len(seen.predicts)} predicts failed")
        began = time.monotonic()
        fault = put_in(seen)
        until = time.monotonic() + MAX_S
        whole = eventually(fault.whole, MAX_S)
        whole_at = time.monotonic()
        while (calm := time.monotonic() - max(seen.last_disturbance(), fault.since)) < _CALM_S:
            if time.monotonic() > until:
                break
            time.sleep(0.2)
    return evaluate(
        name, bound, seen, server, began, fault.since, whole_at if whole and calm >= _CALM_S else None, fault.note
    )


def evaluate(
    name: str,
    bound: Bound,
    seen: Traffic,
    server: Server,
    began: float,
    since: float,
    whole_at: float | None,
    note: str = "",
) -> Measurement:
    """The figures of one fault that was put in at `began`, and the bounds that they miss."""
    failed = seen.failed()
    times = [moment for answer in failed for moment in (max(answer.sent, began), answer.ended)]
    normal = None if whole_at is None else max(whole_at, seen.last_disturbance()) - since
    found = Measurement(
        name=name,
        predicts=len(seen.predicts),
        statuses=dict(sorted(seen.statuses().items())),
        failed=len(failed),
        failing_s=max(times) - min(times) if times else 0.0,
        longest_s=max(answer.wait_s for answer in seen.predicts),
        normal_s=None if normal is None else max(0.0, normal),
        feedback=_count(seen),
        accepted=len(seen.accepted),
        lost=_lost(server, seen),
        note=note,
    )
    found.missed = missed(found, bound)
    return found


def _count(seen: Traffic) -> dict[int, int]:
    statuses = [answer.status for answer in seen.feedback]
    return {status: statuses.count(status) for status in sorted(set(statuses))}


def _lost(server: Server, seen: Traffic) -> int | None:
    try:
        return len(seen.accepted - server.stored())
    except Exception as error:  # of whichever database
        print(f"  the store cannot be read: {error}")
        return None


def missed(found: Measurement, bound: Bound) -> list[str]:
    """A sentence for each bound that is missed."""
    sentences = []
    limits: Mapping[str, tuple[float | None, float | None, str]] = {
        "failed": (found.failed, bound.failed, "predicts failed"),
        "failing_s": (found.failing_s, bound.failing_s, "s of errors"),
        "longest_s": (found.longest_s, bound.longest_s, "s was the longest wait"),
        "lost": (found.lost, bound.lost, "accepted corrections were lost"),
    }
    for value, limit, what in limits.values():
        if value is not None and limit is not None and value > limit:
            sentences.append(f"{value:.4g} {what}, at most {limit:g}")
    if found.normal_s is None:
        sentences.append(f"not normal again within {MAX_S:g} s")
    elif bound.normal_s is not None and found.normal_s > bound.normal_s:
        sentences.append(f"normal after {found.normal_s:.1f} s, at most {bound.normal_s:g}")
    if found.lost is None and bound.lost is not None:
        sentences.append("the store could not be read, so what was lost is not known")
    if other := set(found.feedback) - bound.feedback:
        named = ", ".join("no answer" if status == BROKEN else str(status) for status in sorted(other))
        sentences.append(f"corrections were answered {named}")
    return sentences
