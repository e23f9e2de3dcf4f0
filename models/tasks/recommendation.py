"""Recommendation: rank candidate items for a user by what the user did before and by the items' texts and features."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    StrictBool,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from export.bundle import Bundle
from models.tasks.base import (
    MAX_ITEMS,
    Columns,
    Prediction,
    RankerTask,
    Strict,
    TaskOptions,
    Tensor,
    not_blank,
    rounded,
)
from models.tasks.event_names import outcome
from models.tasks.ranker import Candidates, Past, Ranker, Rows, probability
from models.tasks.ranking_policy import FloatArray, Floats, rank
from models.tasks.reasons import reasons
from models.text import same_text_key
from models.users import UserName, user_name

ItemText = Annotated[str, StringConstraints(strict=True), AfterValidator(not_blank)]
ItemId = Annotated[str, StringConstraints(strict=True, min_length=1)]
Share = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]
FeatureValues = dict[str, Annotated[float, Field(allow_inf_nan=False, strict=True)]]

MAX_HISTORY = 10_000
_FEATURES = "numbers by name. Those that the model was not trained with are ignored; missing ones count as the mean"


class Candidate(Strict):
    """An item that may be shown. Its text is read where the model was not trained with its id."""

    id: ItemId
    text: ItemText
    features: FeatureValues = Field({}, description=_FEATURES)


class HistoryItem(Strict):
    """What the user did with an item. An item without a text counts if the model was trained with its id."""

    id: ItemId | None = None
    text: ItemText | None = None
    event: str = Field("click", description="what the user did, as in training data")
    value: float | None = Field(None, allow_inf_nan=False, strict=True, description="of a `rating` or a `dwell`")
    time: Annotated[float, Field(allow_inf_nan=False, strict=True)] | AwareDatetime | None = Field(
        None, description="seconds since 1970, or RFC 3339; orders the history if all its items have one"
    )
    features: FeatureValues = Field({}, description="not read: a history item counts by its id or its text")

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.id is None and self.text is None:
            raise ValueError("give an 'id' or a 'text'")
        outcome(self.event, self.value)
        return self


class User(Strict):
    id: str | None = None
    history: list[HistoryItem | ItemText] = Field(
        [], fail_fast=True, max_length=MAX_HISTORY, description="oldest first; a text alone is an item that was chosen"
    )
    features: FeatureValues = Field({}, description=_FEATURES)


class RankRequest(Strict):
    """A user's history and the candidates to rank; the answer has the best `top_k`, best first."""

    user: User = User()
    candidates: list[Candidate] = Field(fail_fast=True, min_length=1, max_length=MAX_ITEMS)
    context: FeatureValues = Field({}, description="of the moment, such as the hour: " + _FEATURES)
    top_k: int | None = Field(
        None, ge=1, strict=True, description="how many items the answer has; at most as there are candidates"
    )
    explain: StrictBool = Field(False, description="adds to each item the `reasons` for its score")
    diversity: Share = Field(
        0,
        description="0 to 1: how much an item's likeness to those above it counts against it (docs/recommendation.md)",
    )
    explore: Share = Field(
        0,
        description="0 to 1: how much of the order is left to chance. 0: none; 0.5: the first item is drawn in "
        "proportion to its odds; 1: every order is as probable. Above 0 each item has its `propensity`",
    )
    exclude_seen: StrictBool = Field(False, description="leaves out the candidates that are in the user's history")

    @field_validator("candidates")
    @classmethod
    def _each_once(cls, candidates: list[Candidate]) -> list[Candidate]:
        if len({candidate.id for candidate in candidates}) < len(candidates):
            first: dict[str, int] = {}
            for i, candidate in enumerate(candidates):
                if (before := first.setdefault(candidate.id, i)) != i:
                    raise ValueError(
                        f"[{before}] and [{i}] have the same id, {candidate.id!r:.100}; send each item once"
                    )
        return candidates

    @field_validator("top_k")
    @classmethod
    def _not_above_their_number(cls, top_k: int | None, info: ValidationInfo) -> int | None:
        count = len(info.data.get("candidates", ()))
        if top_k is not None and count and top_k > count:
            raise ValueError(f"is {top_k}, and there are {count} candidates; leave it out for an answer with all")
        return top_k


class Scored(NamedTuple):
    """The candidates of a request that may be shown, with their logits and item vectors, in the request's order."""

    candidates: list[Candidate]
    logits: FloatArray
    vectors: Floats


class RecommendationOptions(TaskOptions):
    history: int = Field(1000, ge=1, le=MAX_HISTORY, description="how many of the newest history items are read")
    unknown_history: int = Field(
        20, ge=0, le=200, description="of these, how many of the newest whose texts the encoder has to read"
    )


class Read(NamedTuple):
    """A request's items as the ranker sees them; the encoder reads the texts of those of row -1, history first."""

    past_keys: list[str]
    past_places: list[int]
    """in the request's history"""
    past_rows: Rows
    past_texts: list[str]
    chosen: list[bool]
    weights: list[float]
    candidates: list[Candidate]
    candidate_rows: Rows
    candidate_texts: list[str]


class Recommendation(RankerTask):
    name = "recommendation"
    summary = "Candidates ranked for a user by what the user did before, and by the items' texts and features."
    Request = RankRequest
    Options = RecommendationOptions
    inputs = (
        Tensor("candidate", "BYTES"),
        Tensor("history", "BYTES", optional=True),
        Tensor("candidate_id", "BYTES", optional=True),
    )
    outputs = (Tensor("id", "BYTES"), Tensor("score", "FP32"), Tensor("propensity", "FP32", optional=True))
    parameters = ("top_k", "diversity", "explore", "exclude_seen")
    example = {
        "user": {"id": "u1", "history": ["Trailhead 2P Ultralight Tent. Two-person tent under one kilo."]},
        "candidates": [
            {"id": "a", "text": "Titanium camping mug. Weighs 60 grams, nests in a pot.", "features": {"price": 24.9}},
            {"id": "b", "text": "Velvet cushion cover. Deep green, hidden zip.", "features": {"price": 19.5}},
        ],
    }
    max_length = 64
    options: RecommendationOptions

    def __init__(self, bundle: Bundle, options: TaskOptions | None = None):
        super().__init__(bundle, options)
        self._ranker = Ranker.of_bundle(bundle)
        self._rng = np.random.default_rng()

    def user(self, request: RankRequest) -> UserName | None:
        return None if request.user.id is None else user_name(request.user.id)

    def draws(self, request: RankRequest) -> bool:
        return request.explore > 0

    def texts(self, request: RankRequest) -> list[str]:
        """Of the items that the model was not trained with: it has the vectors of the others."""
        read = self._read(request)
        return read.past_texts + read.candidate_texts

    def _read(self, request: RankRequest) -> Read:
        """Look the request's items up. An item that is twice in the history counts once, chosen if it was chosen once.

        Of the newest history items, so many are read as the options say.
        """
        strongest: dict[str, tuple[bool, float]] = {}
        texts: dict[str, str | None] = {}
        places: dict[str, int] = {}
        for place in self._newest(request.user.history):
            key, text, said = _history_entry(request.user.history[place])
            before = strongest.pop(key, said)  # popped, so that the order is that of the newest events
            strongest[key] = max(before, said)
            texts[key] = text if text is not None else texts.get(key)
            places[key] = place
        keys = list(strongest)
        rows = self._ranker.rows(keys)
        unread = [i for i in np.flatnonzero(rows < 0).tolist() if texts[keys[i]] is not None]
        unread = unread[max(0, len(unread) - self.options.unknown_history) :]
        kept = sorted([*np.flatnonzero(rows >= 0).tolist(), *unread])
        keys, rows = [keys[i] for i in kept], rows[kept]
        candidates = _shown(request)
        candidate_rows = self._ranker.rows(candidate.id for candidate in candidates)
        return Read(
            past_keys=keys,
            past_places=[places[key] for key in keys],
            past_rows=rows,
            past_texts=[str(texts[key]) for key, row in zip(keys, rows.tolist(), strict=True) if row < 0],
            chosen=[strongest[key][0] for key in keys],
            weights=[strongest[key][1] for key in keys],
            candidates=candidates,
            candidate_rows=candidate_rows,
            candidate_texts=[candidates[i].text for i in np.flatnonzero(candidate_rows < 0).tolist()],
        )

    def _newest(self, history: Sequence[HistoryItem | str]) -> list[int]:
        """The places of the newest items in the history, oldest first."""
        times = [None if isinstance(item, str) else item.time for item in history]
        order = list(range(len(history)))
        if history and all(time is not None for time in times):
            seconds = [time.timestamp() if isinstance(time, datetime) else time for time in times]
            order = np.argsort(np.array(seconds, np.float64), kind="stable").tolist()
        return order[-self.options.history :]

    def scored(self, request: RankRequest, output: NDArray[np.float32]) -> Scored:
        """The candidates that the answer may have. `output` as for `decode`."""
        read = self._read(request)
        past, candidates = self._sides(read, output)
        logits = self._ranker.logits(past, candidates, request.user.features, request.context)
        return Scored(read.candidates, logits, candidates.vectors)

    def _sides(self, read: Read, output: NDArray[np.float32]) -> tuple[Past, Candidates]:
        """The request as the ranker sees it."""
        split = len(read.past_texts)
        output = output.reshape(-1, self._ranker.width)
        past = self._ranker.past(read.past_keys, read.past_rows, output[:split], read.chosen, read.weights)
        ids = [candidate.id for candidate in read.candidates]
        features = [candidate.features for candidate in read.candidates]
        return past, self._ranker.candidates(ids, read.candidate_rows, output[split:], features)

    def decode(self, request: RankRequest, output: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
        read = self._read(request)
        past, candidates = self._sides(read, output)
        logits = self._ranker.logits(past, candidates, request.user.features, request.context)
        order, propensities = rank(
            logits,
            candidates.vectors,
            len(logits) if request.top_k is None else request.top_k,
            diversity=request.diversity,
            explore=request.explore,
            rng=self._rng,
        )
        scores, cut = probability(logits), _cut(read, truncated)
        predictions = []
        for i in order.tolist():
            prediction: dict[str, Any] = {"id": read.candidates[i].id, "score": rounded(scores[i])}
            if i in cut:
                prediction["truncated"] = True
            predictions.append(prediction)
        if propensities is not None:
            for prediction, propensity in zip(predictions, propensities.tolist(), strict=True):
                prediction["propensity"] = propensity  # not rounded: an estimate divides by it
        if request.explain:
            found = self._ranker.contributions(past, candidates, request.user.features, request.context)
            named = [_named(request, place) for place in read.past_places]
            for i, prediction in zip(order, predictions, strict=True):
                prediction["reasons"] = reasons(found, i, named)
        return predictions

    @classmethod
    def tensors_from_predictions(cls, predictions: Sequence[Prediction]) -> dict[str, list[Any]]:
        # Without exploration an item's place is certain.
        return super().tensors_from_predictions([{"propensity": 1.0, **prediction} for prediction in predictions])

    @classmethod
    def request_from_tensors(cls, tensors: Columns) -> dict[str, Any]:
        texts = list(tensors["candidate"])
        ids = list(tensors.get("candidate_id") or map(str, range(len(texts))))
        if len(ids) != len(texts):
            raise ValueError(f"candidate_id has {len(ids)} elements, candidate has {len(texts)}")
        return {
            "user": {"history": list(tensors.get("history") or [])},
            "candidates": [{"id": id_, "text": text} for id_, text in zip(ids, texts, strict=True)],
        }


def _history_entry(item: HistoryItem | str) -> tuple[str, str | None, tuple[bool, float]]:
    """(key, text, (chosen, weight)); the key is the item's id, or its text if it has none."""
    if isinstance(item, str):
        return item, item, outcome("click", None)
    return item.id or str(item.text), item.text, outcome(item.event, item.value)


def _named(request: RankRequest, place: int) -> dict[str, Any]:
    """What an item of the history is called in a reason."""
    item = request.user.history[place]
    return {"index": place} if isinstance(item, str) or item.id is None else {"index": place, "id": item.id}


def _cut(read: Read, truncated: Sequence[bool]) -> set[int]:
    """The candidates whose text was cut."""
    unknown = np.flatnonzero(read.candidate_rows < 0).tolist()
    return {i for i, cut in zip(unknown, truncated[len(read.past_texts) :], strict=True) if cut}


def _shown(request: RankRequest) -> list[Candidate]:
    """The candidates that the answer may have; with `exclude_seen`, not those of the user's history.

    An item is in the history by its id, or by its text where the history has no id.
    """
    if not request.exclude_seen:
        return request.candidates
    seen = {item.id for item in request.user.history if not isinstance(item, str)}
    texts = {
        same_text_key(item if isinstance(item, str) else str(item.text))
        for item in request.user.history
        if isinstance(item, str) or item.id is None
    }
    return [item for item in request.candidates if item.id not in seen and same_text_key(item.text) not in texts]
