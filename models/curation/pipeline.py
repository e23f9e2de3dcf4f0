"""Curation: which corrections the next version may learn, which wait, and which need a human review.

Each of `STEPS` is a function in `models.curation` from groups of samples to those it keeps and its decisions on the
others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.curation.conflicts import nearly_same_text, same_text
from models.curation.duplicates import (
    duplicates,
    in_training_corpus,
    near_duplicates,
    rare_new_labels,
    similar_to_holdout,
    unknown_labels,
    without_text_or_label,
)
from models.curation.label_errors import label_errors
from models.curation.quotas import quotas
from models.curation.rankings import without_ranking
from models.curation.report import Report, placeholders, report_of
from models.curation.types import Context, CurationState, CurationStep, Decision, Group, Rules
from models.feedback.types import Sample
from models.text import label_name

__all__ = ["Context", "Curated", "Report", "Rules", "curate"]

STEPS: tuple[CurationStep, ...] = (
    without_text_or_label,
    unknown_labels,
    # Before any comparison or vote: the holdout must not influence what is learned.
    similar_to_holdout,
    # Before merging, while every vote can be counted.
    same_text,
    in_training_corpus,
    duplicates,
    near_duplicates,
    nearly_same_text,
    # A flood from one source must not dominate the model that finds label errors, so quotas come before it ...
    quotas,
    rare_new_labels,
    label_errors,
    # ... and again after it, because the total is smaller then.
    quotas,
    rare_new_labels,
)
# For rankings, the event is the label. Nothing is merged: each ranking was shown to one user only.
RANKING_STEPS: tuple[CurationStep, ...] = (unknown_labels, without_ranking, quotas)


@dataclass(frozen=True, slots=True)
class Curated:
    """Every sample is in exactly one of the four. The values are reasons by sample id; they never contain the text."""

    kept: list[Sample]
    """to learn, in input order; personal data that intake missed is redacted"""
    dropped: dict[int, str]
    quarantined: dict[int, str]
    """for human review"""
    deferred: dict[int, str]
    """returned to the queue for a later run"""
    report: Report


def curate(samples: Sequence[Sample], context: Context, rules: Rules, steps: Sequence[CurationStep] = STEPS) -> Curated:
    """Sort the samples into kept, dropped, quarantined and deferred. The same input gives the same result.

    The store leases only samples with consent. Raises ValueError when two samples have the same id.
    """
    if len({sample.id for sample in samples}) < len(samples):
        raise ValueError("two samples have the same id")
    clean, leaks = _without_personal_data([_with_label_name(sample, context) for sample in samples], context)
    groups = [Group(sample) for sample in clean]
    decisions: dict[int, Decision] = {}
    for step in steps:
        groups, removed = step(groups, context, rules)
        decisions |= {decision.sample: decision for decision in removed}
    kept_ids = {group.lead.id for group in groups}
    # A merged sample is kept after all when it became the lead of a group whose lead was quarantined.
    decisions = {number: decision for number, decision in decisions.items() if number not in kept_ids}
    kept = [sample for sample in clean if sample.id in kept_ids]

    def of(state: CurationState) -> dict[int, str]:
        return {number: decisions[number].sentence for number in sorted(decisions) if decisions[number].state == state}

    report = report_of(samples, kept, decisions, leaks, context)
    return Curated(kept, of("dropped"), of("quarantined"), of("deferred"), report)


def _with_label_name(sample: Sample, context: Context) -> Sample:
    """A label that the champion does not have is written as a training file's labels are."""
    known = sample.label in context.labels or sample.label == label_name(sample.label)
    return sample if known else replace(sample, label=label_name(sample.label))


def _without_personal_data(samples: Sequence[Sample], context: Context) -> tuple[list[Sample], dict[int, Counter[str]]]:
    """Redact again what intake may have missed. The samples, and the placeholders this added, by sample id."""
    clean: list[Sample] = []
    leaks: dict[int, Counter[str]] = {}
    for sample in samples:
        text = context.redact(sample.text)
        if text != sample.text:
            leaks[sample.id] = placeholders(text) - placeholders(sample.text)
            sample = replace(sample, text=text)
        clean.append(sample)
    return clean, leaks
