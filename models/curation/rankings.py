"""The step of curation that rankings have and texts have not."""

from __future__ import annotations

from models.curation.types import Context, Decision, Group, Rules, StepResult, sift
from models.data.implicit_feedback import unusable


def without_ranking(groups: list[Group], context: Context, rules: Rules) -> StepResult:
    """Drop what is told of a ranking that is not there, or of an item that was not in it."""

    def decision(group: Group) -> Decision | None:
        why = unusable(group.lead)
        return None if why is None else Decision(group.lead.id, "dropped", why)

    return sift(groups, decision)
