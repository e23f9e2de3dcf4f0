"""Implicit feedback: users' events on logged rankings, as interactions to learn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from models.data.columns import FeatureTable
from models.data.dataset import fingerprint
from models.data.interactions import Events, Features, Interactions
from models.feedback.types import Sample
from models.tasks.event_names import outcome

_NOT_CHOSEN = False, 1.0  # an item that was shown and has no event
_CHOSEN_BEFORE = True, 1.0  # of an item of a history that names no event
_Numbers = dict[str, float]
_Outcome = tuple[bool, float]
"""whether an item was chosen, and how much that says"""


class _Item(NamedTuple):
    name: str
    text: str
    numbers: _Numbers


class _Ranking(NamedTuple):
    """One logged answer. `user` is a hash, or the answer's id if the request named no user."""

    user: str
    user_numbers: _Numbers
    context: _Numbers
    time: float
    history: list[tuple[_Item, _Outcome]]
    shown: list[_Item]
    """items that the user is assumed to have seen"""
    outcomes: dict[str, _Outcome]
    """by the names of the items that they have events on; the others were not chosen"""


class _Row(NamedTuple):
    """One entry of Events."""

    user: int
    item: int
    chosen: bool
    weight: float
    time: float
    holdout: bool
    before: bool
    sampled: bool = False


def with_rankings(
    interactions: Interactions, learned: Sequence[Sample], learn: Sequence[Sample], judge: Sequence[Sample] = ()
) -> Interactions:
    """`interactions` and those of the samples, of which those of `judge` are held out.

    The user is assumed to have seen the ranking down to one item below the last that has an event: a click on
    the third means that the first two were skipped (Joachims et al., 2005, https://doi.org/10.1145/1076034.1076063).
    Samples whose ranking is no longer logged are skipped. History items in the request count as chosen before.
    """
    known = {sample.prediction_id for sample in (*learned, *learn)}
    judge = [sample for sample in judge if sample.prediction_id not in known]  # never split an answer
    grown = _Grown(interactions)
    for samples, held_out in (([*learned, *learn], False), (judge, True)):
        for ranking in _rankings(samples):
            grown.add(ranking, held_out)
    added = {
        "samples": len(learn),
        "samples_fingerprint": fingerprint(sorted(map(_identity, learn))),
        "learned_samples": len(learned),
    }
    return grown.interactions(added)


class _Grown:
    """Interactions to which rankings are added."""

    def __init__(self, interactions: Interactions):
        self._old = interactions
        self._users = {name: number for number, name in enumerate(interactions.user_names)}
        self._items = {name: number for number, name in enumerate(interactions.item_names)}
        self._texts = list(interactions.texts)
        self._numbers: dict[str, dict[str, list[tuple[int, float]]]] = {
            "item": defaultdict(list), "user": defaultdict(list), "context": defaultdict(list),
        }  # fmt: skip
        self._rows: list[_Row] = []
        self._known: dict[int, dict[int, _Outcome]] = {}

    def add(self, ranking: _Ranking, held_out: bool) -> None:
        user = self._users.setdefault(ranking.user, len(self._users))
        self._add_numbers("user", user, ranking.user_numbers)
        known = self._known_of(user)
        for item, said in ranking.history:
            number = self._number_of(item)
            if number not in known or said > known[number]:
                known[number] = said
                self._rows.append(_Row(user, number, *said, ranking.time, False, before=True))
        shown = [(ranking.outcomes.get(item.name, _NOT_CHOSEN), item) for item in ranking.shown]
        # Chosen items come last, so that they are not history of the other items of their ranking.
        for (chosen, weight), item in sorted(shown, key=lambda row: (row[0][0], row[1].name)):
            number = self._number_of(item)
            self._add_numbers("context", len(self._old.events) + len(self._rows), ranking.context)
            self._rows.append(_Row(user, number, chosen, weight, ranking.time, held_out, before=False))
            known[number] = max((chosen, weight), known.get(number, _NOT_CHOSEN))

    def interactions(self, added: dict[str, Any]) -> Interactions:
        """All interactions; `added` are the lineage's fields about the new ones."""
        columns = zip(*self._rows, strict=True)
        new = Events(*map(np.array, columns)) if self._rows else Events.empty()
        events = self._old.events.joined(new)
        order = events.order()
        item, item_names = self._features("item", len(self._items))
        user, user_names = self._features("user", len(self._users))
        context, context_names = self._features("context", len(events))
        return replace(
            self._old, user_names=list(self._users), item_names=list(self._items), texts=self._texts,
            events=events.take(order), added=added, item_features=item, item_feature_names=item_names,
            user_features=user, user_feature_names=user_names,
            context_features=context[order], context_feature_names=context_names,
        )  # fmt: skip

    def _known_of(self, user: int) -> dict[int, _Outcome]:
        """What is known of the user, by item: a history that repeats it adds nothing."""
        if user not in self._known:
            events = self._old.events
            known = self._known[user] = {}
            of_user = slice(*np.searchsorted(events.user, [user, user + 1]))
            columns = (
                column[of_user].tolist() for column in (events.item, events.chosen, events.weight, events.sampled)
            )
            for item, *said, sampled in zip(*columns, strict=True):
                if not sampled:
                    known[item] = max(tuple(said), known.get(item, _NOT_CHOSEN))
        return self._known[user]

    def _number_of(self, item: _Item) -> int:
        number = self._items.setdefault(item.name, len(self._items))
        if number == len(self._texts):
            self._texts.append(item.text)
        elif not self._texts[number]:  # it was known by its id alone
            self._texts[number] = item.text
        self._add_numbers("item", number, item.numbers)
        return number

    def _add_numbers(self, kind: str, row: int, numbers: _Numbers) -> None:
        for name, value in numbers.items():
            self._numbers[kind][name].append((row, value))

    def _features(self, kind: str, rows: int) -> tuple[Features, list[str]]:
        """The old features of `item`, `user` or `context`, and what the rankings add to them."""
        table = FeatureTable()
        old: Features = getattr(self._old, f"{kind}_features")
        for at, name in enumerate(getattr(self._old, f"{kind}_feature_names")):
            table.add(name, np.arange(len(old), dtype=np.int32), old[:, at].astype(np.float64))
        for name, cells in self._numbers[kind].items():
            at_rows, values = zip(*cells, strict=True)
            table.add(name, np.array(at_rows, np.int32), np.array(values, np.float64))
        return table.matrix(rows)


def unusable_reason(sample: Sample) -> str | None:
    """Why nothing can be learned from the sample; None if it can be learned."""
    if sample.extra.get("input") is None:
        return "its ranking is no longer in the log"
    if _item(sample) not in [row.get("id") for row in sample.extra["output"] or ()]:
        return "its item was not in the answer"
    try:
        outcome(sample.label, sample.extra.get("value"))
    except ValueError:  # of a later Flywheel
        return "its event or value is none that is known"
    return None


def _rankings(samples: Sequence[Sample]) -> Iterator[_Ranking]:
    def answer(sample: Sample) -> str:
        return sample.prediction_id or ""

    usable = [sample for sample in samples if unusable_reason(sample) is None]
    found = [_ranking(list(events)) for _, events in groupby(sorted(usable, key=answer), key=answer)]
    yield from sorted(found, key=lambda ranking: ranking.time)


def _ranking(events: list[Sample]) -> _Ranking:
    request = events[0].extra["input"]
    candidates = {row["id"]: row for row in request["candidates"]}
    ranked = [row["id"] for row in events[0].extra["output"] if row["id"] in candidates]
    touched = [ranked.index(_item(event)) for event in events if _item(event) in ranked]
    seen = ranked[: max(touched, default=-1) + 2]
    user = request.get("user") or {}
    outcomes: dict[str, _Outcome] = {}
    for event in events:
        said = outcome(event.label, event.extra.get("value"))
        outcomes[_item(event)] = max(said, outcomes.get(_item(event), said))  # chosen if it was chosen once
    return _Ranking(
        user=user.get("id") or str(events[0].prediction_id),
        user_numbers=user.get("features") or {},
        context=request.get("context") or {},
        time=min(event.at for event in events).timestamp(),
        history=[_of_history(item) for item in user.get("history", ())],
        shown=[_catalogued(candidates[name]) for name in seen],
        outcomes=outcomes,
    )


def _of_history(item: dict[str, Any] | str) -> tuple[_Item, _Outcome]:
    if isinstance(item, str):
        return _catalogued(item), _CHOSEN_BEFORE
    try:
        return _catalogued(item), outcome(item.get("event") or "click", item.get("value"))
    except ValueError:  # of a later Flywheel
        return _catalogued(item), _CHOSEN_BEFORE


def _catalogued(item: dict[str, Any] | str) -> _Item:
    """An item of a request; its name is its id, or its text if it has none."""
    if isinstance(item, str):
        return _Item(item, item, {})
    return _Item(item.get("id") or item["text"], item.get("text") or "", item.get("features") or {})


def _identity(sample: Sample) -> tuple[str, ...]:
    value = sample.extra.get("value")
    return sample.prediction_id or "", _item(sample), sample.label, *([] if value is None else [repr(value)])


def _item(sample: Sample) -> str:
    return str(sample.extra["item_id"])
