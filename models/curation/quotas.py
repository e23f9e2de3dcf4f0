"""How much one source, and one user, may give: enough to be learned from, too little to teach the model alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from itertools import chain, zip_longest

from models.curation.types import Context, Decision, Group, Rules, StepResult


def quotas(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Put off what is over the share of its user, then of its source. Trusted sources have no cap.

    The cap is `most_share` of everything that stays, or the allowance where that is more, so that a small queue of one
    source is learned from. What is over it waits for the next run.
    """

    def free(group: Group) -> bool:
        return rules.trust_of(group.lead.source) >= rules.trusted

    def user(group: Group) -> Hashable | None:
        return None if free(group) or group.lead.user is None else (group.lead.source, group.lead.user)

    def source(group: Group) -> Hashable | None:
        return None if free(group) else group.lead.source

    by_user = _capped(groups, user, rules.max_share_of_a_user, rules.allowance_of_a_user, "user")
    by_source = _capped(by_user.kept, source, rules.max_share_of_a_source, rules.allowance_of_a_source, "source")
    return StepResult(by_source.kept, by_user.gone + by_source.gone)


def _capped(
    groups: list[Group], giver_of: Callable[[Group], Hashable | None], share: float, allowance: int, kind: str
) -> StepResult:
    givers = [giver_of(group) for group in groups]
    given = Counter(giver for giver in givers if giver is not None)
    limits = _limits(given, givers.count(None), share, allowance)
    own: dict[Hashable, list[Group]] = defaultdict(list)
    for giver, group in zip(givers, groups, strict=True):
        if giver is not None and given[giver] > limits[giver]:
            own[giver].append(group)
    over = {group.lead.id for giver, some in own.items() for group in _in_turn(some)[limits[giver] :]}
    kept = [group for group in groups if group.lead.id not in over]
    return StepResult(kept, [Decision(number, "deferred", f"over the share of one {kind}") for number in sorted(over)])


def _limits(given: Counter[Hashable], uncapped: int, share: float, allowance: int) -> dict[Hashable, int]:
    """The most each may give, so that none has more than `share` of what then stays, or the allowance.

    Cutting one raises the share of the others, so the cutting repeats until nothing changes; it only ever goes down.
    """
    limits = dict(given)
    if share >= 1:
        return limits
    while True:
        total = uncapped + sum(limits.values())
        lower = {
            giver: min(limit, max(allowance, int(share / (1 - share) * (total - limit) + 1e-9)))
            for giver, limit in limits.items()
        }
        if lower == limits:
            return limits
        limits = lower


def _in_turn(groups: list[Group]) -> list[Group]:
    """Oldest first, the labels in turn, so that the cap takes no label away."""
    by_label: dict[str, list[Group]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: (group.lead.at, group.lead.id)):
        by_label[group.lead.label].append(group)
    rounds = zip_longest(*(by_label[label] for label in sorted(by_label)))
    return [group for group in chain.from_iterable(rounds) if group is not None]
