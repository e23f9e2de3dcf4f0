"""Recommendation: rank candidate items for a user by what the user did before and by the items' texts and features."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

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
from models.tasks.ranker import Candidates, Past, Ranker, Rows, probabilities
from models.users import UserName, user_name

ItemText = Annotated[str, StringConstraints(strict=True), AfterValidator(not_blank)]
ItemId = Annotated[str, StringConstraints(strict=True, min_length=1)]
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
    value: float | None = Field(None, allow_inf_nan=False, description="of a `rating` or a `dwell`")
    time: float | AwareDatetime | None = Field(
        None, allow_inf_nan=False, description="seconds since 1970, or RFC 3339; orders the items if all have one"
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
    top_k: int | None = Field(None, ge=1, strict=True)


class RecommendationOptions(TaskOptions):
    history: int = Field(1000, ge=1, le=MAX_HISTORY, description="how many of the newest history items are read")
    unknown_history: int = Field(
        20, ge=0, le=200, description="of these, how many of the newest whose texts the encoder has to read"
    )


class Read(NamedTuple):
    """A request's items as the ranker sees them; the encoder reads the texts of those of row -1, history first."""

    past_keys: list[str]
    past_rows: Rows
    past_texts: list[str]
    chosen: list[bool]
    weights: list[float]
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
    outputs = (Tensor("id", "BYTES"), Tensor("score", "FP32"))
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
        self.ranker = Ranker.of_bundle(bundle)

    def user(self, request: RankRequest) -> UserName | None:
        return None if request.user.id is None else user_name(request.user.id)

    def texts(self, request: RankRequest) -> list[str]:
        read = self.read(request)
        return read.past_texts + read.candidate_texts

    def read(self, request: RankRequest) -> Read:
        """Look the request's items up. An item that is twice in the history counts once, chosen if it was chosen once.

        Of the newest history items, so many are read as the options say.
        """
        strongest: dict[str, tuple[bool, float]] = {}
        texts: dict[str, str | None] = {}
        for item in self._newest(request.user.history):
            key, text, said = _history_entry(item)
            before = strongest.pop(key, said)  # popped, so that the order is that of the newest events
            strongest[key] = max(before, said)
            texts[key] = text if text is not None else texts.get(key)
        keys = list(strongest)
        rows = self.ranker.rows(keys)
        unread = [i for i in np.flatnonzero(rows < 0).tolist() if texts[keys[i]] is not None]
        unread = unread[max(0, len(unread) - self.options.unknown_history) :]
        kept = sorted([*np.flatnonzero(rows >= 0).tolist(), *unread])
        keys = [keys[i] for i in kept]
        candidate_rows = self.ranker.rows(candidate.id for candidate in request.candidates)
        return Read(
            past_keys=keys,
            past_rows=rows[kept],
            past_texts=[str(texts[key]) for key, row in zip(keys, rows[kept], strict=True) if row < 0],
            chosen=[strongest[key][0] for key in keys],
            weights=[strongest[key][1] for key in keys],
            candidate_rows=candidate_rows,
            candidate_texts=[request.candidates[i].text for i in np.flatnonzero(candidate_rows < 0)],
        )

    def _newest(self, history: Sequence[HistoryItem | str]) -> Sequence[HistoryItem | str]:
        times = [None if isinstance(item, str) else item.time for item in history]
        if history and all(time is not None for time in times):
            seconds = [time.timestamp() if isinstance(time, datetime) else time for time in times]
            history = [history[i] for i in np.argsort(np.array(seconds, np.float64), kind="stable")]
        return history[-self.options.history :]

    def scored(self, request: RankRequest, read: Read, output: NDArray[np.float32]) -> tuple[Past, Candidates]:
        """The ranker's view of the request; `output` is the encoder's for `texts`."""
        split = len(read.past_texts)
        output = output.reshape(-1, self.ranker.width)
        past = self.ranker.past(read.past_keys, read.past_rows, output[:split], read.chosen, read.weights)
        ids, features = zip(*((item.id, item.features) for item in request.candidates), strict=True)
        return past, self.ranker.candidates(ids, read.candidate_rows, output[split:], features)

    def decode(self, request: RankRequest, output: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
        read = self.read(request)
        past, candidates = self.scored(request, read, output)
        logits = self.ranker.logits(past, candidates, request.user.features, request.context)
        scores = probabilities(logits)
        cut = self._cut(read, truncated)
        predictions = []
        for i in np.argsort(-logits, kind="stable")[: request.top_k].tolist():
            prediction: dict[str, Any] = {"id": request.candidates[i].id, "score": rounded(scores[i])}
            if i in cut:
                prediction["truncated"] = True
            predictions.append(prediction)
        return predictions

    @staticmethod
    def _cut(read: Read, truncated: Sequence[bool]) -> set[int]:
        """The candidates whose text was cut."""
        unknown = np.flatnonzero(read.candidate_rows < 0).tolist()
        return {i for i, cut in zip(unknown, truncated[len(read.past_texts) :], strict=True) if cut}

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
