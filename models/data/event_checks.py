"""What events are checked for, and which of them say nothing: docs/decisions/0041-events.md has the list."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.checks import Faults, row_faults
from models.data.columns import unit_of
from models.data.interactions import Events
from models.data.records import DatasetError
from models.data.report import Finding
from models.tasks.event_names import (
    EVENT_KINDS,
    EVENT_NAMES,
    LIKED_FROM,
    MIN_DWELL_S,
    RATING_SCALES,
    STARS,
    RatingScale,
)

_MAX_EXAMPLES = 5
_SHARE_IN_SCALE = 0.999  # of the ratings; a scale that a thousandth exceeds is the scale, and they are faults
_RATING, _DWELL = EVENT_NAMES.index("rating"), EVENT_NAMES.index("dwell")

Mask = NDArray[np.bool_]


def chosen_by_value(
    path: Path, code: NDArray[np.int8], values: NDArray[np.float32], lines: NDArray[Any]
) -> tuple[Mask, RatingScale]:
    """(events,): which events choose their item, and what ratings mean.

    `code` numbers EVENT_NAMES; `values` are of ratings and dwells.

    Raises DatasetError for ratings that are out of the file's scale, or all the same.
    """
    chosen = np.array([EVENT_KINDS[name].chosen for name in EVENT_NAMES])[code]
    rated, scale = code == _RATING, STARS
    if rated.any():
        ratings = values[rated]
        top = _check_ratings(path, ratings, lines[rated])
        lowest, highest = float(ratings.min()), float(ratings.max())
        scale = RatingScale(lowest + LIKED_FROM * (highest - lowest), top)
        chosen[rated] = ratings >= scale.liked_from
    dwelt = code == _DWELL
    chosen[dwelt] = values[dwelt] >= MIN_DWELL_S
    return chosen, scale


def _check_ratings(path: Path, ratings: NDArray[np.float32], lines: NDArray[Any]) -> float:
    """The highest rating of the scale. Raises DatasetError for ratings above it, or all the same."""
    usual = float(np.quantile(ratings, _SHARE_IN_SCALE, method="lower"))
    scale = min((top for top in RATING_SCALES if top >= usual), default=float("inf"))
    outside = np.flatnonzero(ratings > scale)
    if outside.size:
        sentence = (
            f"the rating is {ratings[outside[0]]:g}, and the file's ratings are from 0 to {scale:g}. Correct the value "
            "or leave the row out."
        )
        faults: Faults = {sentence: lines[outside].tolist()}
        raise DatasetError("\n".join(finding.text for finding in row_faults(path, faults, unit_of(path))))
    if ratings.min() == ratings.max():
        raise DatasetError(
            f"{path}: all {len(ratings):,} ratings are {ratings[0]:g}, so that none is better than another. If they "
            "mean that the user liked the item, write 'like' as the event."
        )
    return scale if np.isfinite(scale) else float(ratings.max())


def times_backwards(events: Events, order: NDArray[np.intp]) -> Iterator[Finding]:
    """Whether the file is out of the order of time; `order` are the rows in the file."""
    back = int(((np.diff(order) < 0) & (np.diff(events.user) == 0)).sum())
    if back:
        yield Finding(
            "times_backwards", "note", back,
            f"{back:,} of {len(events):,} rows stand before an older one of the same user.",
            "They were sorted by time; check that larger times are later.",
        )  # fmt: skip


def without_duplicates(
    events: Events, code: NDArray[np.int8], lines: NDArray[Any], unit: str, notes: list[Finding]
) -> Mask:
    """(events,): all but those with the user, item, event and time of an earlier row."""
    keep = np.ones(len(events), np.bool_)
    same = (np.diff(events.user) == 0) & (np.diff(events.time) == 0)
    run = np.concatenate([[0], np.cumsum(~same)])  # number of the user's moment
    tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
    key = np.stack([run[tied], events.item[tied].astype(np.int64) * len(EVENT_NAMES) + code[tied]])
    in_order = np.lexsort(key[::-1])
    repeats = (np.diff(key[:, in_order]) == 0).all(0)
    keep[tied[in_order[1:][repeats]]] = False
    if count := int((~keep).sum()):
        places = np.sort(lines[~keep])[:_MAX_EXAMPLES].tolist()
        notes.append(Finding(
            "duplicates", "note", count,
            f"{count:,} rows repeat another one: the same user, item, event and time.",
            "They count once.", tuple(f"{unit} {line}" for line in places),
        ))  # fmt: skip
    return keep


def without_chosen_views(events: Events, viewed: Mask, notes: list[Finding]) -> Mask:
    """(events,): all but views of items that the same user chose later on the same side of the split.

    A log has both a view and the click that followed. The item was not left lying, and would be learned as both.
    """
    keep = np.ones(len(events), np.bool_)
    if not viewed.any() or not events.chosen.any():
        return keep
    by_item = np.lexsort((events.item, events.user))  # stable: in the order of time
    user, item, holdout = events.user[by_item], events.item[by_item], events.holdout[by_item]
    places = np.where(events.chosen[by_item], np.arange(len(by_item)), len(by_item) - 1)
    following = np.minimum.accumulate(places[::-1])[::-1]
    followed = events.chosen[by_item][following] & (user == user[following]) & (item == item[following])
    followed &= (holdout == holdout[following]) & viewed[by_item]
    keep[by_item[followed]] = False
    if count := int(followed.sum()):
        notes.append(Finding(
            "views_of_chosen_items", "note", count,
            f"{count:,} of {int(viewed.sum()):,} views are of items that their user chose afterwards.",
            "They are left out, and the choices count.",
        ))  # fmt: skip
    return keep


def textless(items: Path | None, names: Sequence[str], has_text: Mask, keep: Mask) -> Iterator[Finding]:
    """The items of the events that the file of items lacks. Raises DatasetError when it has none of them."""
    missing = np.flatnonzero(~has_text)
    if not keep.any():
        shown = ", ".join(repr(names[at]) for at in missing[:_MAX_EXAMPLES])
        raise DatasetError(
            f"{items}: has no item of the events, which are {shown}. Write 'item_id' in both files in the same way."
        )
    if missing.size:
        lost = int((~keep).sum())
        yield Finding(
            "items_without_text", "warning", len(missing),
            f"{len(missing):,} items are not in {items}, so that their {lost:,} events are left out.",
            "Add them, with their texts.", tuple(repr(names[at]) for at in missing[:_MAX_EXAMPLES]),
        )  # fmt: skip


def few_users(events: Events) -> Iterator[Finding]:
    """Users with one event, and a file of one user."""
    totals = np.bincount(events.user)
    users, single = int((totals > 0).sum()), int((totals == 1).sum())
    if users == 1:
        yield Finding(
            "one_user", "warning", 1, "All events are of one user.",
            "What others choose cannot be learned from them. Is 'user_id' the right column?",
        )  # fmt: skip
    if single:
        yield Finding(
            "users_with_one_event", "note", single,
            f"{single:,} of {users:,} users have one event.",
            "It is learned from; a ranking for them cannot be evaluated.",
        )  # fmt: skip


def negatives_sampled(count: int, events: Events) -> Finding:
    """That items were drawn as not chosen. `events` are those of the file."""
    unchosen = int((~events.chosen).sum())
    what = f"only {unchosen:,} of {len(events):,} events are" if unchosen else "no event is"
    return Finding(
        "negatives_sampled", "warning", count,
        f"In the file {what} of an item that was not chosen. {count:,} items stand for such events, drawn by how often "
        "they are chosen; metrics compare with these, and scores are no shares of clicks.",
        "Better is what users saw and did not choose, as events 'view'.",
    )  # fmt: skip


def several_texts(places: Collection[str], items: int) -> Iterator[Finding]:
    """Items with more than one text; `places` are each with the line of a second one."""
    if places:
        yield Finding(
            "item_with_several_texts", "warning", len(places),
            f"{len(places):,} of {items:,} items have more than one text.",
            "The first text of an item is used. Write the same text in all its rows.",
            tuple(islice(places, _MAX_EXAMPLES)),
        )  # fmt: skip


def text_columns(path: Path, columns: Sequence[str]) -> Finding:
    """Columns without a number, which are no features."""
    return Finding(
        "columns_without_numbers", "note", len(columns),
        f"{path.name}: columns without a number are not read: {', '.join(columns)}.",
        "What describes an item in words belongs into its text.",
    )  # fmt: skip


def check_outcomes(path: Path, events: Events) -> None:
    """Raises DatasetError unless both training and holdout have chosen and unchosen items."""
    for name, part in (("training", ~events.holdout), ("holdout", events.holdout)):
        chosen, rows = int(events.chosen[part].sum()), int(part.sum())
        if not rows:
            raise DatasetError(
                f"{path}: there are no {name} rows. Each user's newest fifth is held out, and nothing of a user with "
                "one event: add events of users, or a column 'split'."
            )
        if not 0 < chosen < rows:
            missing = "'view' or 'dislike'" if chosen else "'click', 'like' or 'buy'"
            raise DatasetError(
                f"{path}: the {name} rows need both chosen and unchosen items; {chosen} of {rows} are chosen. Add "
                f"events such as {missing}, or a column 'split' that divides them."
            )
