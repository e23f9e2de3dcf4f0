"""Curation: which corrections the next version may learn from, which wait, and which a person should look at.

`curate` reads as the table of contents; each step is a function in `models.curation` from the groups that are left to
those it keeps and the decisions on the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.curation.conflicts import nearly_same_text, same_text
from models.curation.duplicates import (
    duplicates,
    empty,
    known,
    near_duplicates,
    rare_new_labels,
    similar_to_holdout,
    unknown_labels,
)
from models.curation.label_errors import label_errors
from models.curation.quotas import quotas
from models.curation.rankings import without_ranking
from models.curation.report import Report, placeholders, report_of
from models.curation.types import Context, Decision, Group, Rules, State, Step
from models.feedback.types import Sample

__all__ = ["Context", "Curated", "Report", "Rules", "curate"]

STEPS: tuple[Step, ...] = (
    empty,
    unknown_labels,
    # Before anything compares or counts: what is measured with must not influence what is learned.
    similar_to_holdout,
    # While every vote is there to be counted; merging comes after.
    same_text,
    known,
    duplicates,
    near_duplicates,
    nearly_same_text,
    # A flood of one source must not teach the model that looks for label errors, so the cap comes before it ...
    quotas,
    rare_new_labels,
    label_errors,
    # ... and again, because what others gave has become less.
    quotas,
    rare_new_labels,
)
# Of a ranking the event stands for the label. Nothing is merged: each answer was seen by its user alone.
RANKING_STEPS: tuple[Step, ...] = (unknown_labels, without_ranking, quotas)


@dataclass(frozen=True, slots=True)
class Curated:
    """Every sample is in exactly one of the four. Reasons are sentences without any of the text."""

    kept: list[Sample]
    """to learn from, in the order they came; personal data that was found again is redacted"""
    dropped: dict[int, str]
    quarantined: dict[int, str]
    """for a person to look at"""
    deferred: dict[int, str]
    """back to the queue: another run may take them"""
    report: Report


def curate(samples: Sequence[Sample], context: Context, rules: Rules, steps: Sequence[Step] = STEPS) -> Curated:
    """Sort the samples into kept, dropped, quarantined and deferred. The same input gives the same result.

    Consent is the store's to see to. Raises ValueError when two samples have the same id.
    """
    if len({sample.id for sample in samples}) < len(samples):
        raise ValueError("two samples have the same id")
    clean, leaks = _without_personal_data(samples, context)
    groups = [Group(sample) for sample in clean]
    decisions: dict[int, Decision] = {}
    for step in steps:
        groups, gone = step(groups, context, rules)
        decisions |= {decision.sample: decision for decision in gone}
    kept_ids = {group.lead.id for group in groups}
    # A sample that was merged is kept after all when it took the lead of a group whose lead was quarantined.
    decisions = {number: decision for number, decision in decisions.items() if number not in kept_ids}
    kept = [sample for sample in clean if sample.id in kept_ids]

    def of(state: State) -> dict[int, str]:
        return {number: decisions[number].sentence for number in sorted(decisions) if decisions[number].state == state}

    report = report_of(samples, kept, decisions, leaks, context)
    return Curated(kept, of("dropped"), of("quarantined"), of("deferred"), report)


def _without_personal_data(samples: Sequence[Sample], context: Context) -> tuple[list[Sample], dict[int, Counter[str]]]:
    """The second line of defence: redacted again, and what that found by sample and kind."""
    clean: list[Sample] = []
    leaks: dict[int, Counter[str]] = {}
    for sample in samples:
        text = context.redact(sample.text)
        if text != sample.text:
            leaks[sample.id] = placeholders(text) - placeholders(sample.text)
            sample = replace(sample, text=text)
        clean.append(sample)
    return clean, leaks
