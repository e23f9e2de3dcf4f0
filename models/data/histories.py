"""Each user's history, as training, evaluation and serving read it: an item once, chosen if it was chosen once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64] | NDArray[np.int32]


class Histories(NamedTuple):
    """Users' histories: one row for each user and item, sorted by user, then by item."""

    item: Indices
    chosen: NDArray[np.bool_]
    weight: NDArray[np.float32]
    """of the heaviest event that says so"""
    starts: Indices
    """(users + 1,): where each user's rows begin"""
    keys: Indices
    """one number for each user and item"""

    def rows_of(self, user: Indices, item: Indices, items: int) -> Indices:
        """(events,): the row of each event's item in its user's history, -1 where it is not there."""
        wanted = user.astype(np.int64) * items + item
        if not len(self.keys):
            return np.full(len(wanted), -1, np.int32)
        found = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[found] == wanted, found, -1).astype(np.int32)


def histories_of(user: NDArray[Any], item: NDArray[Any], chosen: Any, weight: Any, users: int, items: int) -> Histories:
    """The histories of so many `users` from their events; the columns are (events,), in any order."""
    key = user.astype(np.int64) * items + item
    order = np.lexsort((weight, chosen, key))  # of each user and item, the last is the heaviest chosen one
    last = order[np.flatnonzero(np.diff(key[order], append=-1))]
    starts = np.searchsorted(key[last], np.arange(users + 1) * np.int64(items))
    return Histories(item[last].astype(np.int32), chosen[last], weight[last], starts, key[last])
