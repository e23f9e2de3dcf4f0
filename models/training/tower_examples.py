"""What towers are trained on, as arrays: interactions with standardized features and each user's history. No torch."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.data.histories import Histories, Indices, histories_of
from models.data.interactions import Interactions
from models.tasks.ranker import compressed, standardized

Floats = NDArray[np.float32]
Scaling = tuple[NDArray[np.float64], NDArray[np.float64]]
"""mean and standard deviation of each feature, compressed"""


class Examples(NamedTuple):
    """What towers are trained on: events, sorted by user, and what is known of users and items.

    The events are arrays of one length. `learn`: whether the event has a loss, `past`: whether it is history of others.
    `texts` is (items, hidden); the features, (items, k), (users, m) and (events, c), are standardized, 0 where unknown.
    """

    user: Indices
    item: Indices
    chosen: NDArray[np.bool_]
    weight: Floats
    learn: NDArray[np.bool_]
    past: NDArray[np.bool_]
    texts: Floats
    item_features: Floats
    user_features: Floats
    context_features: Floats

    @property
    def users(self) -> int:
        return len(self.user_features)

    @property
    def items(self) -> int:
        return len(self.texts)

    def only(self, rows: NDArray[Any]) -> Examples:
        """These events; all users and items stay. `rows` are numbers or a mask."""
        if rows.dtype == np.bool_ and rows.all():
            return self  # large data is not copied
        return self._replace(
            user=self.user[rows], item=self.item[rows], chosen=self.chosen[rows], weight=self.weight[rows],
            learn=self.learn[rows], past=self.past[rows], context_features=self.context_features[rows],
        )  # fmt: skip


def history_of(examples: Examples) -> Histories:
    """The history of each user from those of `examples` that are history."""
    past = examples.only(examples.past)
    return histories_of(past.user, past.item, past.chosen, past.weight, examples.users, examples.items)


class Scalings(NamedTuple):
    """How the features of items, users and contexts are standardized."""

    item: Scaling
    user: Scaling
    context: Scaling


def scalings_of(interactions: Interactions) -> Scalings:
    """From all items and users, and from the contexts of training events."""
    return Scalings(
        scaling_of(interactions.item_features),
        scaling_of(interactions.user_features),
        scaling_of(interactions.context_features[interactions.events.training]),
    )


def scaling_of(raw: NDArray[Any]) -> Scaling:
    """(rows, k), NaN where missing; a feature that is always missing has mean 0."""
    mean, scale = np.empty(raw.shape[1]), np.empty(raw.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without a value
        for at in range(raw.shape[1]):  # each alone: double precision of all contexts would take gigabytes
            values = compressed(raw[:, at].astype(np.float64))
            mean[at], scale[at] = np.nanmean(values), np.nanstd(values)
    return np.nan_to_num(mean), np.maximum(np.nan_to_num(scale), 1e-6)


def examples_of(interactions: Interactions, texts: Floats, scalings: Scalings) -> Examples:
    """Everything but the holdout, and the pooled vectors of the items' texts, (items, hidden)."""
    events = interactions.events
    kept = ~events.holdout
    features = interactions.item_features, interactions.user_features, interactions.context_features[kept]
    item, user, context = (_standardized(raw, scaling) for raw, scaling in zip(features, scalings, strict=True))
    return Examples(
        events.user[kept], events.item[kept], events.chosen[kept],
        events.weight[kept], events.training[kept], ~events.sampled[kept], texts, item, user, context,
    )  # fmt: skip


def _standardized(raw: NDArray[np.float32], scaling: Scaling) -> Floats:
    """`standardized`, a column after another, so that all are never in double precision at once."""
    found = np.empty(raw.shape, np.float32)
    for at, (mean, scale) in enumerate(zip(*scaling, strict=True)):
        found[:, at] = standardized(raw[:, at].astype(np.float64), mean, scale)
    return found


def newest(events_of_users: Indices, share: float) -> NDArray[np.bool_]:
    """(events,): whether an event is among the newest `share` of its user's. Events are sorted by user, then time."""
    counts = np.bincount(events_of_users, minlength=1)
    starts = np.cumsum(counts) - counts
    place = np.arange(len(events_of_users)) - starts[events_of_users]
    kept = np.floor(counts * (1 - share) + 1e-9)
    found: NDArray[np.bool_] = place >= kept[events_of_users]
    return found
