"""Implicit feedback: users' events on logged rankings, as interactions to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from models.data.dataset import fingerprint
from models.data.interactions import CatalogueItem, Impression, Interactions
from models.feedback.types import Sample
from models.tasks.ranker import CHOSEN

_Items = dict[str, CatalogueItem]


class _Ranking(NamedTuple):
    """One logged answer. `user` is a hash, or the answer's id if the request named no user."""

    user: str
    time: float
    history: _Items
    shown: _Items
    """items that the user is assumed to have seen"""
    chosen: frozenset[str]


def with_rankings(
    interactions: Interactions, learned: Sequence[Sample], learn: Sequence[Sample], judge: Sequence[Sample] = ()
) -> Interactions:
    """`interactions` and those of the samples, of which those of `judge` are held out.

    The user is assumed to have seen the ranking down to one item below the last that was clicked or viewed: a click on
    the third means that the first two were skipped (Joachims et al., 2005, https://doi.org/10.1145/1076034.1076063).
    Samples whose ranking is no longer logged are skipped. History items in the request count as chosen before.
    """
    impressions, items = list(interactions.impressions), dict(interactions.items)
    chosen_before = {(i.user, i.item) for i in impressions if i.chosen}
    known = {sample.prediction_id for sample in (*learned, *learn)}
    judge = [sample for sample in judge if sample.prediction_id not in known]  # never split an answer
    for samples, held_out in (([*learned, *learn], False), (judge, True)):
        for ranking in _rankings(samples):
            for name, item in (*ranking.history.items(), *ranking.shown.items()):
                items.setdefault(name, item)
            for name in ranking.history:
                if (ranking.user, name) not in chosen_before:
                    chosen_before.add((ranking.user, name))
                    impressions.append(Impression(ranking.user, name, True, ranking.time, False, before=True))
            # Chosen items come last, so that they are not history of the other items of their ranking.
            for name in sorted(ranking.shown, key=ranking.chosen.__contains__):
                chosen = name in ranking.chosen
                impressions.append(Impression(ranking.user, name, chosen, ranking.time, held_out))
                if chosen:
                    chosen_before.add((ranking.user, name))
    impressions.sort(key=lambda impression: (impression.user, impression.time))
    added = {
        "samples": len(learn),
        "samples_fingerprint": fingerprint(sorted((s.prediction_id or "", _item(s), s.label) for s in learn)),
        "learned_samples": len(learned),
    }
    numbers = sorted({*interactions.numbers, *(name for item in items.values() for name in item.numbers)})
    return interactions._replace(impressions=impressions, items=items, numbers=numbers, added=added)


def unusable_reason(sample: Sample) -> str | None:
    """Why nothing can be learned from the sample; None if it can be learned."""
    if sample.extra.get("input") is None:
        return "its ranking is no longer in the log"
    if _item(sample) not in [row.get("id") for row in sample.extra["output"] or ()]:
        return "its item was not in the answer"
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
    return _Ranking(
        user=user.get("id") or str(events[0].prediction_id),
        time=min(event.at for event in events).timestamp(),
        history=dict(_catalogued(item) for item in user.get("history", ())),
        shown={name: _catalogued(candidates[name])[1] for name in seen},
        chosen=frozenset(_item(event) for event in events if event.label in CHOSEN),
    )


def _catalogued(item: dict[str, Any] | str) -> tuple[str, CatalogueItem]:
    """(name, item) of an item of a request; the name is its id, or its text if it has none."""
    if isinstance(item, str):
        return item, CatalogueItem(item, {})
    return item.get("id") or item["text"], CatalogueItem(item["text"], item.get("features") or {})


def _item(sample: Sample) -> str:
    return str(sample.extra["item_id"])
