"""The report of a curation run, in counts. It never contains a text, since it outlives the erasure of its samples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from models.curation.types import Context, Decision
from models.feedback.types import Sample

_MAX_EXAMPLES = 5
_PLACEHOLDER = re.compile(r"\[(\w+)\]")


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of one run. `sources` maps each source to `received`, `kept` and each state that occurred."""

    received: int
    kept: int
    reasons: dict[str, dict[str, int]]
    """state -> reason -> count"""
    sources: dict[str, dict[str, int]]
    labels: dict[str, int]
    """kept samples by label"""
    new_labels: dict[str, int]
    """kept samples by label that the champion does not have"""
    examples: dict[str, list[int]]
    """reason -> its first feedback ids"""
    personal_data: dict[str, Any]
    """counts of samples with personal data that intake missed, and of its kinds; it is redacted now"""

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    def markdown(self) -> str:
        """The report as a Markdown page."""
        lines = ["# Curation", "", f"{self.received:,} samples received, {self.kept:,} kept.", ""]
        lines += ["| state | reason | samples | for instance |", "|---|---|---:|---|"]
        for state, reasons in self.reasons.items():
            for reason, count in reasons.items():
                ids = ", ".join(map(str, self.examples[reason]))
                lines.append(f"| {state} | {reason} | {count:,} | {ids} |")
        states = ["received", "kept", *self.reasons]
        lines += ["", "## Sources", "", f"| source | {' | '.join(states)} |", f"|---|{'---:|' * len(states)}"]
        for source, counts in self.sources.items():
            lines.append(f"| {_cell(source)} | {' | '.join(f'{counts.get(state, 0):,}' for state in states)} |")
        lines += ["", "## Labels", "", "| label | kept | new |", "|---|---:|---|"]
        for label, count in self.labels.items():
            lines.append(f"| {_cell(label)} | {count:,} | {'yes' if label in self.new_labels else ''} |")
        lines += ["", "## Personal data", "", self._personal_data(), ""]
        return "\n".join(lines)

    def _personal_data(self) -> str:
        if not self.personal_data["samples"]:
            return "None was found again."
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.personal_data["kinds"].items())
        ids = ", ".join(map(str, self.personal_data["examples"]))
        return (
            f"Found again in {self.personal_data['samples']:,} samples ({kinds}) and redacted: feedback {ids}. "
            "It was stored; redact it there as well."
        )


def report_of(
    samples: Sequence[Sample],
    kept: Sequence[Sample],
    decisions: Mapping[int, Decision],
    leaks: Mapping[int, Counter[str]],
    context: Context,
) -> Report:
    """The report of a run; `leaks` are the placeholders that the second redaction added, by sample id."""
    reasons: dict[str, Counter[str]] = {state: Counter() for state in ("dropped", "quarantined", "deferred")}
    examples: dict[str, list[int]] = {}
    sources: dict[str, Counter[str]] = {}
    redacted = _memoized(context.redact)
    for sample in samples:
        decision = decisions.get(sample.id)
        tally = sources.setdefault(redacted(sample.source), Counter())
        tally["received"] += 1
        tally[decision.state if decision else "kept"] += 1
        if decision:
            reasons[decision.state][decision.reason] += 1
            if len(some := examples.setdefault(decision.reason, [])) < _MAX_EXAMPLES:
                some.append(sample.id)
    labels = Counter(redacted(sample.label) for sample in kept)
    new = Counter(redacted(sample.label) for sample in kept if sample.label not in context.labels)
    return Report(
        received=len(samples),
        kept=len(kept),
        reasons={state: dict(counts.most_common()) for state, counts in reasons.items()},
        sources={source: dict(sources[source]) for source in sorted(sources)},
        labels=dict(sorted(labels.items())),
        new_labels=dict(sorted(new.items())),
        examples=examples,
        personal_data={
            "samples": len(leaks),
            "kinds": dict(sorted(sum(leaks.values(), Counter[str]()).items())),
            "examples": sorted(leaks)[:_MAX_EXAMPLES],
        },
    )


def placeholders(text: str) -> Counter[str]:
    """How often each placeholder such as `[email]` is in the text."""
    return Counter(_PLACEHOLDER.findall(text))


def _memoized(redact: Callable[[str], str]) -> Callable[[str], str]:
    known: dict[str, str] = {}

    def redacted(text: str) -> str:
        if text not in known:
            known[text] = redact(text)
        return known[text]

    return redacted


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
