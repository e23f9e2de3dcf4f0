"""Thresholds of a load test, and which of them its figures miss. Importing this needs no Locust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_FAILED = 0.001
"""share of the requests: what the objective of 99.9 % answered without an error leaves"""
REFUSED = " (refused)"
"""ends the names of requests that were refused by 503 with Retry-After while the scenario overloads the server"""


@dataclass(frozen=True)
class Threshold:
    """The bounds of all requests of one name. Times are those that the client measures, in milliseconds."""

    name: str
    max_p95_ms: float
    max_p99_ms: float
    max_failed: float = MAX_FAILED
    max_refused: float = 0.0
    """share that may be refused by 503 with Retry-After while the scenario overloads the server on purpose"""


@dataclass(frozen=True)
class Figures:
    """What was measured of all requests of one name. `requests` includes the failed ones, and not the refused ones."""

    requests: int
    failed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Fact:
    """What a scenario must see besides its requests, such as the end of a retraining; `sentence` says what it saw."""

    name: str
    met: bool
    sentence: str


def misses(thresholds: Sequence[Threshold], figures: Mapping[str, Figures], facts: Sequence[Fact] = ()) -> list[str]:
    """A sentence for each bound that is missed; none when all are met. What was never asked misses its bounds."""
    found = []
    for bound in thresholds:
        answered, refused = figures.get(bound.name), figures.get(bound.name + REFUSED)
        if answered is None or answered.requests == 0:
            found.append(f"{bound.name}: no request was answered, so that no bound was measured")
            continue
        found += _missed(bound, answered, refused.requests if refused else 0)
    bounded = {bound.name for bound in thresholds}
    for name, measured in figures.items():
        if name.removesuffix(REFUSED) not in bounded and measured.failed:
            found.append(f"{name}: {measured.failed} of {measured.requests} requests failed, and none may")
    return found + [f"{fact.name}: {fact.sentence}" for fact in facts if not fact.met]


def _missed(bound: Threshold, answered: Figures, refused: int) -> list[str]:
    found = []
    if answered.failed > bound.max_failed * answered.requests:
        share = answered.failed / answered.requests
        found.append(
            f"{bound.name}: {answered.failed} of {answered.requests} requests failed, {share:.2%}; "
            f"at most {bound.max_failed:.2%} may"
        )
    sent = answered.requests + refused
    if refused > bound.max_refused * sent:
        found.append(
            f"{bound.name}: {refused} of {sent} requests were refused, {refused / sent:.1%}; "
            f"at most {bound.max_refused:.1%} may be"
        )
    for quantile, value, most in (
        ("p95", answered.p95_ms, bound.max_p95_ms),
        ("p99", answered.p99_ms, bound.max_p99_ms),
    ):
        if value > most:
            found.append(f"{bound.name}: {quantile} was {value:,.0f} ms; at most {most:,.0f} ms are allowed")
    return found


def table(thresholds: Sequence[Threshold], figures: Mapping[str, Figures]) -> str:
    """The figures beside their bounds, a line for each name of requests."""
    bounds = {bound.name: bound for bound in thresholds}
    lines = [
        f"{'requests':34}{'number':>8}{'failed':>8}{'refused':>9}{'p50':>8}{'p95':>8}{'p99':>8}  at most p95, p99, ms"
    ]
    for name, measured in sorted(figures.items()):
        if name.endswith(REFUSED):
            continue
        refused = figures[name + REFUSED].requests if name + REFUSED in figures else 0
        times = "".join(f"{value:8,.0f}" for value in (measured.p50_ms, measured.p95_ms, measured.p99_ms))
        most = f"  {bounds[name].max_p95_ms:,.0f}, {bounds[name].max_p99_ms:,.0f}" if name in bounds else ""
        lines.append(f"{name:34}{measured.requests:8,}{measured.failed:8,}{refused:9,}{times}{most}")
    return "\n".join(lines)
