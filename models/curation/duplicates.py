"""Leave out what the model must not see or has seen, and merge samples that say the same."""

from __future__ import annotations

from collections import Counter

from models.curation.similarity import Index, fingerprints, words
from models.curation.types import Context, Decision, Group, Rules, StepResult, sift
from models.feedback.types import Sample


def empty(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop what has no text or no label."""

    def decision(group: Group) -> Decision | None:
        blank = not group.lead.text.strip() or not group.lead.label.strip()
        return Decision(group.lead.id, "dropped", "without text or label") if blank else None

    return sift(groups, decision)


def unknown_labels(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop labels that the champion does not have, unless the task learns new ones."""

    def decision(group: Group) -> Decision | None:
        known = context.new_labels or group.lead.label in context.labels
        return None if known else Decision(group.lead.id, "dropped", "unknown label")

    return sift(groups, decision)


def rare_new_labels(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Put off new labels that are not yet understandable from their examples; they wait for more."""
    texts = Counter(group.lead.label for group in groups)

    def decision(group: Group) -> Decision | None:
        label = group.lead.label
        if label in context.labels or texts[label] >= rules.min_new_label:
            return None
        return Decision(group.lead.id, "deferred", "new label with too few examples", f"({texts[label]})")

    return sift(groups, decision)


def similar_to_holdout(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop what resembles a text of the frozen holdout, whatever its label: it would be learned by heart."""
    index = Index(rules.near_duplicate)
    held_out = list(dict.fromkeys(words(text) for text in context.holdout))
    for position, fingerprint in enumerate(fingerprints(held_out)):
        index.add(position, fingerprint)
    texts = list({words(group.lead.text): None for group in groups})
    seen = {text for text, fingerprint in zip(texts, fingerprints(texts), strict=True) if index.similar(fingerprint)}

    def decision(group: Group) -> Decision | None:
        return Decision(group.lead.id, "dropped", "resembles the holdout") if words(group.lead.text) in seen else None

    return sift(groups, decision)


def known(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop what the training corpus already says: the same text with the same label."""
    corpus = {(words(example.text), example.label) for example in context.training}

    def decision(group: Group) -> Decision | None:
        is_known = (words(group.lead.text), group.lead.label) in corpus
        return Decision(group.lead.id, "dropped", "known") if is_known else None

    return sift(groups, decision)


def duplicates(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Merge the same text with the same label into the most trusted sample, the earliest of these."""
    leads: dict[tuple[tuple[str, ...], str], int] = {}
    merging = _Merging("duplicate")
    for group in by_trust(groups, rules):
        key = (words(group.lead.text), group.lead.label)
        if key in leads:
            merging.into(leads[key], group)
        else:
            leads[key] = merging.lead(group)
    return merging.outcome()


def near_duplicates(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Merge texts of one label that are nearly the same into the most trusted sample, the earliest of these.

    Each is compared with leads only, so a chain of small differences never merges what is not alike.
    """
    merging = _Merging("near duplicate")
    indexes: dict[str, Index] = {}
    ranked = by_trust(groups, rules)
    for group, fingerprint in zip(ranked, fingerprints(words(group.lead.text) for group in ranked), strict=True):
        index = indexes.setdefault(group.lead.label, Index(rules.near_duplicate))
        alike = index.similar(fingerprint)
        if alike:
            merging.into(alike[0], group)
        else:
            index.add(merging.lead(group), fingerprint)
    return merging.outcome()


def by_trust(groups: list[Group], rules: Rules) -> list[Group]:
    return sorted(groups, key=lambda group: (-rules.trust_of(group.lead.source), group.lead.at, group.lead.id))


class _Merging:
    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._leads: list[Sample] = []
        self._merged: list[list[Sample]] = []
        self._gone: list[Decision] = []

    def lead(self, group: Group) -> int:
        self._leads.append(group.lead)
        self._merged.append(list(group.merged))
        return len(self._leads) - 1

    def into(self, position: int, group: Group) -> None:
        self._merged[position].extend(group.votes)
        detail = f"of feedback {self._leads[position].id}"
        self._gone.append(Decision(group.lead.id, "dropped", self._reason, detail))

    def outcome(self) -> StepResult:
        kept = [Group(lead, tuple(merged)) for lead, merged in zip(self._leads, self._merged, strict=True)]
        return StepResult(kept, self._gone)
