"""Labels that look wrong by confident learning (Northcutt et al., 2021, https://arxiv.org/abs/1911.00068).

Each text's label is predicted out of fold, by a model that was fitted on other feedback and on the training corpus. The
corpus is judged with the feedback: its labels are taken as correct, so the share of them that look wrong is the false
positive rate on this task.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from models.curation.types import Context, Decision, Group, Rules, StepResult
from models.data.dataset import Example
from models.data.sampling import balanced_sample
from models.feedback.types import Sample

_FOLDS = 5
# They find different errors: a random wrong label has a low probability, a confused one is below its neighbour's.
_FILTERS = {"low_normalized_margin": "normalized_margin", "low_self_confidence": "self_confidence"}
# Chosen on Banking77 among 1, 3, 10 and 30: a weaker penalty fits the wrong labels.
_INVERSE_PENALTY = 3.0
_CONFIDENCE = 0.95
# The judging model's time and memory grow with texts times labels: with 2,000 labels it would take gigabytes and hours.
_MAX_REPLAY = 10_000

Vectors = NDArray[np.float32]


class _Judgement(NamedTuple):
    judged: NDArray[np.bool_]
    """(groups,): whether the group could be judged; labels with fewer examples than folds cannot"""
    flagged: NDArray[np.bool_]
    """(groups,): whether the label looks wrong"""
    suspected: NDArray[np.bool_]
    """(groups,): whether the label looks more wrong than `1 - max_good_suspected` of the corpus's labels"""
    false_positive_rate: float
    """share of the corpus that is flagged: the false positive rate"""


def label_errors(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Quarantine samples whose label looks wrong, and all samples of a source or user with too many of them."""
    if len(groups) < rules.min_to_suspect:
        return StepResult(groups, [])
    # Of every label, since the correct label of a sample may be one that is not in the feedback.
    known = len({example.label for example in context.training})
    a_label = max(_FOLDS, min(rules.replay_a_label, _MAX_REPLAY // max(known, 1)))
    replay = balanced_sample(context.training, a_label, rules.min_replay, context.seed)
    texts = [group.lead.text for group in groups]
    vectors = np.asarray(context.embed([*texts, *(example.text for example in replay)]), np.float32)
    own, corpus = dict(zip(texts, vectors, strict=False)), vectors[len(texts) :]
    removed: list[Decision] = []
    excluded: set[Hashable] = set()
    while True:
        judgement = _judge(groups, np.stack([own[group.lead.text] for group in groups]), replay, corpus, context, rules)
        newly_excluded = _contributors_of_errors(groups, judgement, rules) - excluded
        if not newly_excluded:
            break
        # Their labels were in the models that judged the others, so these are judged again without them.
        excluded |= newly_excluded
        groups, decisions = _without(groups, excluded)
        removed += decisions
        for group in groups:  # a merged sample that became the lead has another spelling
            if group.lead.text not in own:
                own[group.lead.text] = np.asarray(context.embed([group.lead.text]), np.float32)[0]
        if not groups:
            return StepResult([], removed)
    kept = [group for group, bad in zip(groups, judgement.suspected, strict=True) if not bad]
    removed += [
        Decision(group.lead.id, "quarantined", "suspected label error")
        for group, bad in zip(groups, judgement.suspected, strict=True)
        if bad
    ]
    return StepResult(kept, removed)


def _judge(
    groups: Sequence[Group], own: Vectors, replay: Sequence[Example], corpus: Vectors, context: Context, rules: Rules
) -> _Judgement:
    labels = np.array([*(group.lead.label for group in groups), *(example.label for example in replay)])
    vectors = np.concatenate([own, corpus.reshape(-1, own.shape[1])])
    counts = Counter(labels.tolist())
    judged = np.array([counts[label] >= _FOLDS for label in labels.tolist()])
    flagged = np.zeros(len(labels), np.bool_)
    suspected = flagged.copy()
    is_corpus = np.arange(len(labels)) >= len(groups)
    names, numbers = np.unique(labels[judged], return_inverse=True)
    if len(names) > 1:
        probabilities = _out_of_sample(vectors[judged], numbers, context.seed)
        of_corpus = is_corpus[judged]
        for filter_by, score in _FILTERS.items():
            found = find_label_issues(numbers, probabilities, filter_by=filter_by, n_jobs=1)
            quality = get_label_quality_scores(numbers, probabilities, method=score)
            floor = np.quantile(quality[of_corpus], rules.max_good_suspected) if of_corpus.any() else np.inf
            flagged[judged] |= found
            suspected[judged] |= found & (quality < floor)
    seen = flagged[judged & is_corpus]
    mine = ~is_corpus
    return _Judgement(judged[mine], flagged[mine], suspected[mine], float(seen.mean()) if seen.size else 0.0)


def _out_of_sample(vectors: Vectors, numbers: NDArray[np.intp], seed: int) -> NDArray[np.float64]:
    """Probabilities of shape (texts, labels), each row from a fold's model that did not see the text."""
    out = np.zeros((len(numbers), int(numbers.max()) + 1))
    for seen, unseen in StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(vectors, numbers):
        model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000).fit(vectors[seen], numbers[seen])
        out[np.ix_(unseen, model.classes_)] = model.predict_proba(vectors[unseen])
    return out


def _contributors_of_errors(groups: Sequence[Group], judgement: _Judgement, rules: Rules) -> set[Hashable]:
    """Sources and users of whose labels, with 95 % confidence, more than `max_suspected` are wrong.

    The false positive rate is subtracted: on a hard task, a tenth of the correct labels are flagged. The bound is
    Wilson's, one-sided, so that a few samples exclude nobody.
    """
    tallies: dict[Hashable, Counter[bool]] = defaultdict(Counter)
    for group, judged, flagged in zip(groups, judgement.judged, judgement.flagged, strict=True):
        if judged:
            for contributor in _contributors(group.lead):
                tallies[contributor][bool(flagged)] += 1
    return {
        contributor
        for contributor, tally in tallies.items()
        if _has_too_many_errors(tally, judgement.false_positive_rate, rules)
    }


def _has_too_many_errors(tally: Counter[bool], false_positive_rate: float, rules: Rules) -> bool:
    if tally.total() < rules.min_to_judge or not tally[True]:
        return False
    test = binomtest(tally[True], tally.total(), alternative="greater")
    lower_bound = float(test.proportion_ci(_CONFIDENCE, method="wilson").low)
    return (lower_bound - false_positive_rate) / max(1 - false_positive_rate, 1e-9) > rules.max_suspected


def _contributors(sample: Sample) -> list[Hashable]:
    return [sample.source] if sample.user is None else [sample.source, (sample.source, sample.user)]


def _without(groups: Sequence[Group], excluded: set[Hashable]) -> tuple[list[Group], list[Decision]]:
    """The groups with a vote of a contributor that is not excluded, led by the first such vote.

    So nobody loses a sample because an excluded source repeated it.
    """
    kept: list[Group] = []
    removed: list[Decision] = []
    for group in groups:
        if excluded.isdisjoint(_contributors(group.lead)):
            kept.append(group)
            continue
        by_source = group.lead.source in excluded
        removed.append(Decision(group.lead.id, "quarantined", "suspected source" if by_source else "suspected user"))
        if votes := [vote for vote in group.merged if excluded.isdisjoint(_contributors(vote))]:
            kept.append(Group(votes[0], tuple(votes[1:])))
    return kept, removed
