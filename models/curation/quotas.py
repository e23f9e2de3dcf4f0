"""Quotas: the most samples that one source, and one user, may contribute to a training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from itertools import chain, zip_longest

from models.curation.types import Context, Decision, Group, Rules, StepResult


def quotas(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Defer samples over the quota of their user, then of their source. Trusted sources have no quota.

    A quota is a share of everything that is kept, or the allowance where that is more, so that a small queue with one
    source is learned. Samples over the quota wait for the next run.
    """

    def is_trusted(group: Group) -> bool:
        return rules.trust_of(group.lead.source) >= rules.trusted

    def user(group: Group) -> Hashable | None:
        return None if is_trusted(group) or group.lead.user is None else (group.lead.source, group.lead.user)

    def source(group: Group) -> Hashable | None:
        return None if is_trusted(group) else group.lead.source

    by_user = _cap(groups, user, rules.max_share_of_a_user, rules.allowance_of_a_user, "user")
    by_source = _cap(by_user.kept, source, rules.max_share_of_a_source, rules.allowance_of_a_source, "source")
    return StepResult(by_source.kept, by_user.removed + by_source.removed)


def _cap(
    groups: list[Group], contributor_of: Callable[[Group], Hashable | None], share: float, allowance: int, kind: str
) -> StepResult:
    contributors = [contributor_of(group) for group in groups]
    counts = Counter(contributor for contributor in contributors if contributor is not None)
    limits = _limits(counts, contributors.count(None), share, allowance)
    over_limit: dict[Hashable, list[Group]] = defaultdict(list)
    for contributor, group in zip(contributors, groups, strict=True):
        if contributor is not None and counts[contributor] > limits[contributor]:
            over_limit[contributor].append(group)
    deferred = {
        group.lead.id for contributor, some in over_limit.items() for group in _round_robin(some)[limits[contributor] :]
    }
    kept = [group for group in groups if group.lead.id not in deferred]
    return StepResult(
        kept, [Decision(number, "deferred", f"over the share of one {kind}") for number in sorted(deferred)]
    )


def _limits(counts: Counter[Hashable], uncapped: int, share: float, allowance: int) -> dict[Hashable, int]:
    """The most samples of each contributor, so that none has more than `share` of those kept, or the allowance.

    Lowering one limit raises the shares of the others, so this repeats until nothing changes. Limits never rise.
    """
    limits = dict(counts)
    if share >= 1:
        return limits
    while True:
        total = uncapped + sum(limits.values())
        lower = {
            contributor: min(limit, max(allowance, int(share / (1 - share) * (total - limit) + 1e-9)))
            for contributor, limit in limits.items()
        }
        if lower == limits:
            return limits
        limits = lower


def _round_robin(groups: list[Group]) -> list[Group]:
    """Oldest first, round-robin over the labels, so that a quota does not remove whole labels."""
    by_label: dict[str, list[Group]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: (group.lead.at, group.lead.id)):
        by_label[group.lead.label].append(group)
    rounds = zip_longest(*(by_label[label] for label in sorted(by_label)))
    return [group for group in chain.from_iterable(rounds) if group is not None]
