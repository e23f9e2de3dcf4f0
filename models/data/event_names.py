"""What the events of an interactions file say about an item: docs/decisions/0041-events.md has the reasons."""

from __future__ import annotations

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
