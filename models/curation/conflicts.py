"""Settle texts with several labels: by the trust of the sources, then by the number of votes; ties are quarantined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from models.curation.duplicates import most_trusted_first
from models.curation.similarity import SimilarityIndex, differ_by_typos, fingerprints
from models.curation.types import Context, Decision, Group, Rules, StepResult
from models.text import words

# Texts with a typo in one word are about this similar. It only selects candidates; `differ_by_typos` decides.
_SIMILARITY_WITH_TYPOS = 85.0


class _Vote(NamedTuple):
    """The weight of a label: trust first, then votes. A source counts once, since repeating a vote costs nothing."""

    trust: float
    votes: int


def same_text(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Settle texts that are the same up to case, punctuation and spaces; the training corpus votes too."""
    clusters: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in groups:
        clusters[words(group.lead.text)].append(group)
    corpus: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for example in context.training:
        if (key := words(example.text)) in clusters:  # not the whole corpus, which may have a million texts
            corpus[key].add(example.label)
    return _settle(((cluster, corpus.get(key, set())) for key, cluster in clusters.items()), rules)


def nearly_same_text(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Settle texts with different labels that differ by typos only.

    Similar texts may differ in label: of Banking77's 13,083 texts 163 have a similarity of 90 to one with another,
    right label, of the Financial PhraseBank's 4,838 28. By typos there are 6 and none, and the 6 are contradictions.
    """
    ranked = most_trusted_first(groups, rules)
    texts = [words(group.lead.text) for group in ranked]
    index = SimilarityIndex(_SIMILARITY_WITH_TYPOS)
    clusters: dict[int, list[Group]] = {}
    for position, fingerprint in enumerate(fingerprints(texts)):
        similar = (at for at in index.similar(fingerprint) if differ_by_typos(texts[at], texts[position]))
        first = next(similar, None)
        if first is None:
            index.add(position, fingerprint)
            clusters[position] = [ranked[position]]
        else:
            clusters[first].append(ranked[position])
    return _settle(((cluster, set()) for cluster in clusters.values()), rules)


def _settle(clusters: Iterable[tuple[Sequence[Group], set[str]]], rules: Rules) -> StepResult:
    kept: list[Group] = []
    removed: list[Decision] = []
    for cluster, corpus in clusters:
        votes = _votes(cluster, corpus, rules)
        best = max(votes.values())
        winners = [label for label, vote in votes.items() if vote == best]
        for group in cluster:
            decision = None if winners == [group.lead.label] else _decision(group, cluster, winners, corpus)
            if decision is None:
                kept.append(group)
            else:
                removed.append(decision)
    return StepResult(kept, removed)


def _votes(cluster: Sequence[Group], corpus: set[str], rules: Rules) -> dict[str, _Vote]:
    sources: dict[str, set[str]] = defaultdict(set)
    votes: dict[str, set[tuple[str, str | None]]] = defaultdict(set)
    for group in cluster:
        for vote in group.votes:
            sources[group.lead.label].add(vote.source)
            votes[group.lead.label].add((vote.source, vote.user))
    return {
        label: _Vote(
            # Summed in a fixed order, so that equal sums are equal to the last bit.
            round(sum(sorted(map(rules.trust_of, sources[label]))) + rules.trust_of_corpus * (label in corpus), 9),
            len(votes[label]) + (label in corpus),
        )
        for label in {*sources, *corpus}
    }


def _decision(group: Group, cluster: Sequence[Group], winners: list[str], corpus: set[str]) -> Decision:
    number, label = group.lead.id, group.lead.label
    if label not in corpus and corpus.intersection(winners):
        return Decision(number, "quarantined", "contradicts the training corpus")
    if len(winners) == 1:
        winner = min(other.lead.id for other in cluster if other.lead.label == winners[0])
        return Decision(number, "dropped", "outvoted", f"by feedback {winner}")
    against = min(other.lead.id for other in cluster if other.lead.label != label)
    return Decision(number, "quarantined", "undecided contradiction", f"with feedback {against}")
