"""Recommendation: rank candidate items for a user by the items that the user chose before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StringConstraints

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
from models.tasks.ranker import Item, Ranker
from models.users import UserName, user_name

ItemText = Annotated[str, StringConstraints(strict=True), AfterValidator(not_blank)]
Features = dict[str, Annotated[float, Field(allow_inf_nan=False)]]


class Candidate(Strict):
    """An item that may be shown: its text, and numbers such as `price` that the model was trained with."""

    id: Annotated[str, StringConstraints(strict=True, min_length=1)]
    text: ItemText
    features: Features = {}


class HistoryItem(Strict):
    """An item the user chose before."""

    id: str | None = None
    text: ItemText
    features: Features = {}


class User(Strict):
    id: str | None = None
    history: list[HistoryItem | ItemText] = Field([], fail_fast=True, max_length=200, description="oldest first")


class RankRequest(Strict):
    """A user's history and the candidates to rank; the answer has the best `top_k`, best first."""

    user: User = User()
    candidates: list[Candidate] = Field(fail_fast=True, min_length=1, max_length=MAX_ITEMS)
    top_k: int | None = Field(None, ge=1, strict=True)


class RecommendationOptions(TaskOptions):
    history: int = Field(10, ge=1, le=200, description="how many of the newest history items are read")


class Recommendation(RankerTask):
    name = "recommendation"
    summary = "Candidates ranked for a user by the texts the user chose before and the candidates' numbers."
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
        self._ranker = Ranker.from_asset(bundle.asset("ranker"))

    def _history(self, request: RankRequest) -> list[HistoryItem]:
        newest = request.user.history[-self.options.history :]
        # model_construct: the text is validated already.
        return [HistoryItem.model_construct(text=item) if isinstance(item, str) else item for item in newest]

    def user(self, request: RankRequest) -> UserName | None:
        return None if request.user.id is None else user_name(request.user.id)

    def texts(self, request: RankRequest) -> list[str]:
        return [item.text for item in self._history(request)] + [item.text for item in request.candidates]

    def decode(self, request: RankRequest, output: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
        history = self._history(request)
        split = len(history)
        scores = self._ranker.score(
            [Item(item.id, item.features) for item in history],
            output[:split],
            [Item(item.id, item.features) for item in request.candidates],
            output[split:],
        )
        order = np.argsort(-scores, kind="stable")[: request.top_k]
        predictions = []
        for i in order:
            prediction: dict[str, Any] = {"id": request.candidates[i].id, "score": rounded(scores[i])}
            if truncated[split + i]:
                prediction["truncated"] = True
            predictions.append(prediction)
        return predictions

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
