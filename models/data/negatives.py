"""Items that stand for those that a user was shown and did not choose, where a file has only what users chose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.data.interactions import Events

MIN_UNCHOSEN_SHARE = 0.02  # of the events; with fewer, what was not chosen says little about the rest
_POWER = 0.75  # of an item's count, as word2vec draws: https://arxiv.org/abs/1310.4546
_PER_CHOICE = 4
_MAX_SAMPLED = 20_000_000  # half a gigabyte
_MAX_DRAWS = 20


def with_negatives(events: Events, items: int) -> tuple[Events, NDArray[np.intp]]:
    """`events`, with items drawn as not chosen where hardly any of them are not chosen; and (events,): the row in
    `events` of each or, of a drawn one, of the choice beside which it stands.

    Up to four for a choice, each drawn in proportion to its count of choices to the power of 0.75 and among those that
    the user has no event of. Those beside training events are drawn by the counts of the training events alone.
    """
    rows = np.arange(len(events))
    if (~events.chosen).sum() >= MIN_UNCHOSEN_SHARE * len(events):
        return events, rows
    rng = np.random.default_rng(0)
    choices = events.chosen & ~events.before
    per_choice = max(1, min(_PER_CHOICE, _MAX_SAMPLED // max(1, int(choices.sum()))))
    theirs = np.unique(events.user.astype(np.int64) * items + events.item)
    sources, drawn = [rows], [events.item]
    for part, counted in ((events.training & choices, events.training), (events.holdout & choices, events.chosen)):
        beside = np.repeat(np.flatnonzero(part), per_choice)
        popularity = np.bincount(events.item[counted & events.chosen], minlength=items).astype(np.float64) ** _POWER
        found = _draw(events.user[beside], popularity, theirs, rng)
        sources.append(beside[found >= 0])
        drawn.append(found[found >= 0])
    source, item = np.concatenate(sources), np.concatenate(drawn)
    sampled = np.arange(len(source)) >= len(events)
    copies = events.take(source)
    columns = {**vars(copies), "item": item, "sampled": sampled}
    columns["chosen"] = copies.chosen & ~sampled
    columns["weight"] = np.where(sampled, np.float32(1.0), copies.weight)
    unsorted = Events(**columns)
    order = unsorted.order()
    return unsorted.take(order), source[order]


def _draw(
    users: NDArray[np.int32], popularity: NDArray[np.float64], theirs: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int32]:
    """(users,): an item that the user has no event of, -1 where none was found; `theirs` are sorted pairs."""
    found = np.full(len(users), -1, np.int32)
    cumulative = np.cumsum(popularity)
    if not len(users) or not cumulative[-1]:
        return found
    open_ = np.arange(len(users))
    for _ in range(_MAX_DRAWS):
        items = np.searchsorted(cumulative, rng.random(len(open_)) * cumulative[-1], side="right")
        pairs = users[open_].astype(np.int64) * len(popularity) + items
        at = np.minimum(np.searchsorted(theirs, pairs), len(theirs) - 1)
        taken = theirs[at] == pairs
        found[open_[~taken]] = items[~taken]
        open_ = open_[taken]
        if not len(open_):
            break
    return found
