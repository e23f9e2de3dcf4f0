"""Drop samples that the model must not or need not learn, and merge duplicates."""

from __future__ import annotations

from collections import Counter

from models.curation.similarity import SimilarityIndex, fingerprints
from models.curation.types import Context, Decision, Group, Rules, StepResult, filter_groups
from models.feedback.types import Sample
from models.text import words


def without_text_or_label(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop samples without text or without label."""

    def decision(group: Group) -> Decision | None:
        blank = not group.lead.text.strip() or not group.lead.label.strip()
        return Decision(group.lead.id, "dropped", "without text or label") if blank else None

    return filter_groups(groups, decision)


def unknown_labels(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop labels that the champion does not have, unless the task learns new ones."""

    def decision(group: Group) -> Decision | None:
        allowed = context.new_labels or group.lead.label in context.labels
        return None if allowed else Decision(group.lead.id, "dropped", "unknown label")

    return filter_groups(groups, decision)


def rare_new_labels(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Defer new labels that have too few distinct texts to be learned yet."""
    texts = Counter(group.lead.label for group in groups)

    def decision(group: Group) -> Decision | None:
        label = group.lead.label
        if label in context.labels or texts[label] >= rules.min_new_label:
            return None
        return Decision(group.lead.id, "deferred", "new label with too few examples", f"({texts[label]})")

    return filter_groups(groups, decision)


def similar_to_holdout(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop samples that resemble a text of the frozen holdout, whatever their label: the holdout must stay unseen."""
    index = SimilarityIndex(rules.near_duplicate)
    held_out = list(dict.fromkeys(words(text) for text in context.holdout))
    for position, fingerprint in enumerate(fingerprints(held_out)):
        index.add(position, fingerprint)
    texts = list({words(group.lead.text): None for group in groups})
    seen = {text for text, fingerprint in zip(texts, fingerprints(texts), strict=True) if index.similar(fingerprint)}

    def decision(group: Group) -> Decision | None:
        return Decision(group.lead.id, "dropped", "resembles the holdout") if words(group.lead.text) in seen else None

    return filter_groups(groups, decision)


def in_training_corpus(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop samples that are in the training data already: the same text with the same label."""
    asked = {(words(group.lead.text), group.lead.label) for group in groups}
    corpus = {
        key for example in context.training if (key := (words(example.text), example.label)) in asked
    }  # not the whole corpus, which may have a million texts

    def decision(group: Group) -> Decision | None:
        is_known = (words(group.lead.text), group.lead.label) in corpus
        return Decision(group.lead.id, "dropped", "known") if is_known else None

    return filter_groups(groups, decision)


def duplicates(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Merge samples of the same text and label into the most trusted one, the earliest of these."""
    leads: dict[tuple[tuple[str, ...], str], int] = {}
    merger = _Merger("duplicate")
    for group in most_trusted_first(groups, rules):
        key = (words(group.lead.text), group.lead.label)
        if key in leads:
            merger.merge_into(leads[key], group)
        else:
            leads[key] = merger.add_lead(group)
    return merger.result()


def near_duplicates(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Merge samples of one label with nearly the same text into the most trusted one, the earliest of these.

    Each is compared with leads only, so that a chain of small differences does not merge dissimilar texts.
    """
    merger = _Merger("near duplicate")
    indexes: dict[str, SimilarityIndex] = {}
    ranked = most_trusted_first(groups, rules)
    for group, fingerprint in zip(ranked, fingerprints(words(group.lead.text) for group in ranked), strict=True):
        index = indexes.setdefault(group.lead.label, SimilarityIndex(rules.near_duplicate))
        alike = index.similar(fingerprint)
        if alike:
            merger.merge_into(alike[0], group)
        else:
            index.add(merger.add_lead(group), fingerprint)
    return merger.result()


def most_trusted_first(groups: list[Group], rules: Rules) -> list[Group]:
    return sorted(groups, key=lambda group: (-rules.trust_of(group.lead.source), group.lead.at, group.lead.id))


class _Merger:
    """Collects leads, and merges other groups into them."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._leads: list[Sample] = []
        self._merged: list[list[Sample]] = []
        self._removed: list[Decision] = []

    def add_lead(self, group: Group) -> int:
        self._leads.append(group.lead)
        self._merged.append(list(group.merged))
        return len(self._leads) - 1

    def merge_into(self, position: int, group: Group) -> None:
        self._merged[position].extend(group.votes)
        detail = f"of feedback {self._leads[position].id}"
        self._removed.append(Decision(group.lead.id, "dropped", self._reason, detail))

    def result(self) -> StepResult:
        kept = [Group(lead, tuple(merged)) for lead, merged in zip(self._leads, self._merged, strict=True)]
        return StepResult(kept, self._removed)
