"""A run's figures, and docs/faults.md, which the command writes from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loadtests.faults.bounds import BOUNDS, CONNECTIONS, DEADLINE_S, DEMANDED, SLOW_S, Bound
from loadtests.faults.measurement import MAX_S, Measurement
from loadtests.faults.misbehaving import Check
from loadtests.texts import ROOT

PAGE = ROOT / "docs" / "faults.md"

WHAT = {
    "replica-killed": "`kill -9` of one of two replicas",
    "replica-frozen": "SIGSTOP to one of two replicas",
    "haproxy-killed": "`kill -9` of HAProxy",
    "manager-killed": "`kill -9` of Ray Serve's HAProxyManager",
    "controller-killed": "`kill -9` of Ray Serve's controller",
    "raylet-killed": "`kill -9` of Ray's raylet; the server ends and is started again",
    "store-killed": "`kill -9` of PostgreSQL, away for a minute",
    "store-frozen": "SIGSTOP to PostgreSQL for a minute",
    "retraining-killed": "`kill -9` of a retraining",
    "disk-full": "no block left on the home's disk",
    "disk-slow": "writes to the home's disk stall for half of each second",
    "clock-forward": "the wall clock jumps forward by an hour",
    "clock-back": "the wall clock jumps back, to an hour ago",
    "descriptors": "a replica has no file descriptor left",
    "memory": "a replica meets its cgroup's limit of memory",
    "promotion": "another version becomes the champion",
    "rollback": "and the one before again",
    "rolling-restart": "the task is deployed again, one replica after another",
}


@dataclass
class Run:
    """What was measured, and what could not be."""

    machine: str
    versions: str
    minutes: float = 0.0
    measured: list[Measurement] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """faults whose measurement failed, which counts as missed"""
    checks: list[Check] = field(default_factory=list)

    def missed(self) -> list[str]:
        """A sentence for each missed bound."""
        faults = [f"{found.name}: {sentence}" for found in self.measured for sentence in found.missed]
        clients = [f"{what}: {value:g}, at most {bound:g}" for what, value, bound in self.checks if value > bound]
        return faults + clients + [f"{name}: could not be measured: {reason}" for name, reason in self.broken.items()]

    def summary(self) -> str:
        missed = self.missed()
        lines = [f"{len(self.measured)} faults measured in {self.minutes:.0f} minutes, {len(missed)} bounds missed"]
        lines += [f"  MISSED {sentence}" for sentence in missed]
        lines += [f"  not measured: {name}: {reason}" for name, reason in self.not_measured.items()]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "versions": self.versions,
            "minutes": round(self.minutes, 1),
            "measured": [found.as_json() for found in self.measured],
            "not_measured": self.not_measured,
            "broken": self.broken,
            "checks": self.checks,
        }


def write_page(run: Run) -> None:
    PAGE.write_text(page(run), encoding="utf-8")


def page(run: Run) -> str:
    """The page as Markdown."""
    parts = [
        "# Faults",
        f"Measured by `python -m loadtests.faults` in {run.minutes:.0f} minutes on {run.machine}; {run.versions}.",
        f"{CONNECTIONS} clients send predicts to the intent task, each as soon as its last was answered, with a "
        f"deadline of {DEADLINE_S:g} s, and one client sends five corrections a second. The server has two replicas of "
        "intent, accepts larger requests than by default, and retrains nothing by itself.",
        "A predict *failed* when its answer was not 200, or none came. *Errors for* is the time from the first of "
        "these to the last. The server is *normal* when what was ended has its successor and every predict is answered "
        f"200 within {SLOW_S:g} s. This counts from the fault; for a store, a disk, a limit of descriptors or of "
        "memory, from its end. *Lost* are corrections that were answered 202 and are not in the store. A bound that is "
        "*ours* was chosen after those of similar faults; the others are what the server has to reach.",
        _table(run),
    ]
    if run.not_measured:
        parts += ["## Not measured", "\n".join(f"- {WHAT.get(n, n)}: {why}." for n, why in run.not_measured.items())]
    if missed := run.missed():
        parts += ["## Missed", "\n".join(f"- {sentence}." for sentence in missed)]
    if run.checks:
        parts += ["## Clients that misbehave", _checks(run.checks)]
    parts += [
        "What the server does against these faults, and why: [0055](decisions/0055-faults.md), "
        "[0056](decisions/0056-haproxy-stays.md); the disk: [0029](decisions/0029-nothing-on-a-disk.md)."
    ]
    return "\n\n".join(parts) + "\n"


def _table(run: Run) -> str:
    columns = ("fault", "predicts", "failed", "errors for, s", "longest wait, s", "normal after, s", "corrections",
               "lost", "bound", "")  # fmt: skip
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for found in run.measured:
        normal = f"not in {MAX_S:g}" if found.normal_s is None else f"{found.normal_s:.1f}"
        errors = _counts({status: n for status, n in found.statuses.items() if status != 200})
        cells = [
            WHAT[found.name] + (f" ({found.note})" if found.note else ""),
            f"{found.predicts:,}",
            f"{found.failed:,}" + (f": {errors}" if errors else ""),
            f"{found.failing_s:.1f}",
            f"{found.longest_s:.2f}",
            normal,
            _counts(found.feedback),
            "not known" if found.lost is None else str(found.lost),
            bound_in_words(BOUNDS[found.name]) + ("" if found.name in DEMANDED else " (ours)"),
            "**missed**" if found.missed else "met",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _counts(statuses: dict[int, int]) -> str:
    return ", ".join(f"{count:,} × {status or 'no answer'}" for status, count in statuses.items())


def bound_in_words(bound: Bound) -> str:
    parts = []
    if bound.failed is not None:
        parts.append(f"{bound.failed} failed")
    if bound.failing_s is not None:
        parts.append(f"errors for {bound.failing_s:g} s")
    if bound.longest_s is not None:
        parts.append(f"wait {bound.longest_s:g} s")
    if bound.normal_s is not None:
        parts.append(f"normal in {bound.normal_s:g} s")
    if bound.lost is not None:
        parts.append(f"{bound.lost} lost")
    return ", ".join(parts)


def _checks(checks: list[Check]) -> str:
    rows = [f"| {what} | {value:.4g} | {bound:g} | {'met' if value <= bound else '**missed**'} |"
            for what, value, bound in checks]  # fmt: skip
    return "\n".join(["| what | value | at most | |", "|---|---|---|---|", *rows])
