"""The step of curation that rankings have and texts have not."""

from __future__ import annotations

from models.curation.types import Context, Fate, Group, Outcome, Rules, sift
from models.data.implicit_feedback import unusable


def without_ranking(groups: list[Group], context: Context, rules: Rules) -> Outcome:
    """Drop what is told of a ranking that is not there, or of an item that was not in it."""

    def fate(group: Group) -> Fate | None:
        why = unusable(group.lead)
        return None if why is None else Fate(group.lead.id, "dropped", why)

    return sift(groups, fate)
