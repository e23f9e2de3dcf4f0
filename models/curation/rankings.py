"""The curation step for rankings only."""

from __future__ import annotations

from models.curation.types import Context, Decision, Group, Rules, StepResult, filter_groups
from models.data.implicit_feedback import unusable_reason


def without_ranking(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop events whose ranking is not in the prediction log, or whose item was not in the ranking."""

    def decision(group: Group) -> Decision | None:
        reason = unusable_reason(group.lead)
        return None if reason is None else Decision(group.lead.id, "dropped", reason)

    return filter_groups(groups, decision)
