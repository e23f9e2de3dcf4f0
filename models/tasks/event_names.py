"""What the events of a user say about an item: docs/decisions/0041-events.md has the reasons."""

from __future__ import annotations

import math
from typing import NamedTuple


class EventKind(NamedTuple):
    """What one event of this name says."""

    chosen: bool
    """of events with a value, that it depends on the value"""
    weight: float
    has_value: bool = False


EVENT_KINDS = {
    "view": EventKind(False, 1.0),
    "click": EventKind(True, 1.0),
    "like": EventKind(True, 2.0),
    "buy": EventKind(True, 3.0),
    "dislike": EventKind(False, 1.0),
    "rating": EventKind(True, 1.0, has_value=True),
    "dwell": EventKind(True, 1.0, has_value=True),
}
EVENT_NAMES = tuple(EVENT_KINDS)

# Half a minute on a page is the usual bound of a satisfied click: Fox et al., 2005,
# https://doi.org/10.1145/1059981.1059982
MIN_DWELL_S = 30.0
# 4 and 5 of 1 to 5, 4 and more of 0.5 to 5, 8 and more of 1 to 10.
LIKED_FROM = 0.75
"""a rating chooses its item from this share of the way between the file's lowest and highest rating"""
RATING_SCALES = (1.0, 5.0, 10.0, 100.0)
"""the highest rating of the scales in use; above the highest, everything is a rating"""


class RatingScale(NamedTuple):
    """What ratings mean, as the file of events that a version was trained with tells it."""

    liked_from: float
    """the lowest rating that chooses its item"""
    highest: float


RATINGS = "ratings"
"""the asset of a bundle with its RatingScale"""
STARS = RatingScale(4.0, 5.0)
"""of a version whose training data had no ratings"""


def check_event(event: str, value: float | None) -> None:
    """Raises ValueError, which says what is wrong, for an event of a request or of feedback that nothing can mean.

    How high a rating may be, the version knows: its RatingScale.
    """
    kind = EVENT_KINDS.get(event)
    if kind is None:
        raise ValueError(f"there is no event {event!r:.100}; it must be one of: {', '.join(EVENT_NAMES)}")
    if not kind.has_value:
        if value is not None:
            raise ValueError(f"a {event} has no 'value'; only a rating and a dwell have one")
        return
    if value is None:
        raise ValueError(f"a {event} needs a 'value'")
    if not 0 <= value < math.inf:
        what = "seconds" if event == "dwell" else "number of stars or points"
        raise ValueError(f"the value of a {event} is {value:g}; it must be its {what}, from 0 up")


def outcome(event: str, value: float | None, ratings: RatingScale = STARS) -> tuple[bool, float]:
    """(chosen, weight) of one event of a request or of feedback. Raises ValueError as `check_event` does."""
    check_event(event, value)
    kind = EVENT_KINDS[event]
    if value is None:
        return kind.chosen, kind.weight
    return value >= (MIN_DWELL_S if event == "dwell" else ratings.liked_from), kind.weight
