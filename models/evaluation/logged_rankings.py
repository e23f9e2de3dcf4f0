"""Logged rankings with propensities, scored again by the version whose policy is to be judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from export.model import Model
from models.evaluation.off_policy import JudgedRanking
from models.feedback.store import Store
from models.feedback.types import ItemEvent, LoggedPrediction
from models.tasks.event_names import outcome
from models.tasks.ranking_policy import step_probabilities
from models.tasks.recommendation import RankRequest, Recommendation

_AT_ONCE = 100  # rankings whose texts are read together
_MAX_VECTORS = 50_000  # kept, by text


@dataclass(frozen=True)
class LoggedRanking:
    """An answer whose items were drawn. `chosen` are the ids of the items that the user chose, by an event."""

    user: str
    request: Any
    items: tuple[str, ...]
    propensities: NDArray[np.float64]
    chosen: frozenset[str]


def read_rankings(store: Store, task: str, max_rankings: int) -> list[LoggedRanking]:
    """The newest answers of `task` that have propensities."""
    drawn = (row for row in store.predictions.newest(task) if _is_drawn(row.output))
    rankings = []
    for rows in _batches(islice(drawn, max_rankings), _AT_ONCE):
        events = store.feedback.events(task, [row.id for row in rows])
        rankings += [_ranking(row, events.get(row.id, ())) for row in rows]
    return rankings


def judge(
    rankings: Sequence[LoggedRanking],
    task: Recommendation,
    model: Model,
    positions: int,
    report: Callable[[int], None] = lambda done: None,
    *,
    explore: float | None = None,
) -> list[JudgedRanking]:
    """The rankings, as the version of `task` and `model` would have drawn the first `positions` of each.

    It is asked what was asked: with the same candidates, `diversity`, `exclude_seen` and, unless it is given here,
    `explore`. A ranking that it cannot repeat is left out: its request is refused today, or an item that was shown is
    not among the candidates.
    `report` is called with the number of rankings that are done.
    """
    vectors: dict[str, NDArray[np.float32]] = {}
    judged, done = [], 0
    for some in _batches(iter(rankings), _AT_ONCE):
        asked = [(ranking, request) for ranking in some if (request := _request(ranking, explore)) is not None]
        texts = dict.fromkeys(text for _, request in asked for text in task.texts(request))
        if len(vectors) > _MAX_VECTORS:
            vectors.clear()
        if new := [text for text in texts if text not in vectors]:
            vectors.update(zip(new, model.predict(new), strict=True))
        for ranking, request in asked:
            read = task.texts(request)
            # None is read of a request whose items the version was trained with.
            output = task.activate(np.stack([vectors[text] for text in read])) if read else np.zeros((0, 0), np.float32)
            if (found := _judged(ranking, request, task, output, positions)) is not None:
                judged.append(found)
        done += len(some)
        report(done)
    return judged


def _judged(
    ranking: LoggedRanking, request: RankRequest, task: Recommendation, output: NDArray[np.float32], positions: int
) -> JudgedRanking | None:
    candidates, logits, vectors = task.scored(request, output)
    places = {candidate.id: place for place, candidate in enumerate(candidates)}
    shown = ranking.items[:positions]
    if any(item not in places for item in shown):
        return None
    order = np.array([places[item] for item in shown], np.intp)
    return JudgedRanking(
        user=ranking.user,
        chosen=np.array([item in ranking.chosen for item in shown]),
        propensities=ranking.propensities[:positions],
        order=order,
        logits=logits,
        probabilities=step_probabilities(logits, vectors, order, diversity=request.diversity, explore=request.explore),
    )


def _request(ranking: LoggedRanking, explore: float | None) -> RankRequest | None:
    changed = {} if explore is None else {"explore": explore}
    try:
        return RankRequest.model_validate({**ranking.request, **changed})
    except ValidationError:
        return None


def _ranking(row: LoggedPrediction, events: Sequence[ItemEvent]) -> LoggedRanking:
    return LoggedRanking(
        user=row.subject or row.user or row.id,
        request=row.input,
        items=tuple(item["id"] for item in row.output),
        propensities=np.array([item["propensity"] for item in row.output], np.float64),
        chosen=frozenset(event.item_id for event in events if _is_choice(event)),
    )


def _is_choice(event: ItemEvent) -> bool:
    try:
        return outcome(event.event, event.value)[0]
    except ValueError:  # an event of a later Flywheel
        return False


def _is_drawn(output: Any) -> bool:
    return bool(output) and all(0 < item.get("propensity", 0) <= 1 for item in output)


def _batches(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while some := list(islice(rows, size)):
        yield some
