"""Recommendation: rank candidate items for a user by the items that the user chose before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, StrictBool, StringConstraints, ValidationInfo, field_validator

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
from models.tasks.ranker import Item, Ranker, probability
from models.tasks.ranking_policy import FloatArray, Floats, rank
from models.tasks.reasons import Contributions, reasons
from models.text import same_text_key
from models.users import UserName, user_name

ItemText = Annotated[str, StringConstraints(strict=True), AfterValidator(not_blank)]
Features = dict[str, Annotated[float, Field(allow_inf_nan=False)]]
Share = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]


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
        self._ranker = Ranker.from_asset(bundle.asset("ranker"))
        self._rng = np.random.default_rng()

    def _history(self, request: RankRequest) -> list[HistoryItem]:
        return _items(request.user.history[-self.options.history :])

    def user(self, request: RankRequest) -> UserName | None:
        return None if request.user.id is None else user_name(request.user.id)

    def draws(self, request: RankRequest) -> bool:
        return request.explore > 0

    def texts(self, request: RankRequest) -> list[str]:
        return [item.text for item in self._history(request)] + [item.text for item in _shown(request)]

    def scored(self, request: RankRequest, output: NDArray[np.float32]) -> Scored:
        """The candidates that the answer may have. `output` as for `decode`."""
        history, candidates = self._history(request), _shown(request)
        vectors = output[len(history) :]
        return Scored(candidates, self._ranker.logits(*self._arguments(history, candidates, output)), vectors)

    def decode(self, request: RankRequest, output: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
        candidates, logits, vectors = self.scored(request, output)
        order, propensities = rank(
            logits,
            vectors,
            len(candidates) if request.top_k is None else request.top_k,
            diversity=request.diversity,
            explore=request.explore,
            rng=self._rng,
        )
        scores, split = probability(logits), len(output) - len(candidates)
        predictions = []
        for i in order:
            prediction: dict[str, Any] = {"id": candidates[i].id, "score": rounded(scores[i])}
            if truncated[split + i]:
                prediction["truncated"] = True
            predictions.append(prediction)
        if propensities is not None:
            for prediction, propensity in zip(predictions, propensities.tolist(), strict=True):
                prediction["propensity"] = propensity  # not rounded: an estimate divides by it
        if request.explain:
            self._explain(request, candidates, output, order, predictions)
        return predictions

    def _explain(
        self,
        request: RankRequest,
        candidates: Sequence[Candidate],
        output: NDArray[np.float32],
        order: NDArray[np.intp],
        predictions: Sequence[Prediction],
    ) -> None:
        """Give each prediction its `reasons`."""
        history = self._history(request)
        found: Contributions = self._ranker.contributions(*self._arguments(history, candidates, output))
        before = len(request.user.history) - len(history)
        named = [
            {"index": before + i, **({} if item.id is None else {"id": item.id})} for i, item in enumerate(history)
        ]
        for i, prediction in zip(order, predictions, strict=True):
            prediction["reasons"] = reasons(found, i, named)

    def _arguments(
        self, history: Sequence[HistoryItem], candidates: Sequence[Candidate], output: NDArray[np.float32]
    ) -> tuple[list[Item], NDArray[np.float32], list[Item], NDArray[np.float32]]:
        """What the ranker reads. `output` is of the history's texts, then of the candidates'."""
        return (
            [Item(item.id, item.features) for item in history],
            output[: len(history)],
            [Item(item.id, item.features) for item in candidates],
            output[len(history) :],
        )

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


def _items(history: Sequence[HistoryItem | str]) -> list[HistoryItem]:
    # model_construct: the text is validated already.
    return [HistoryItem.model_construct(text=item) if isinstance(item, str) else item for item in history]


def _shown(request: RankRequest) -> list[Candidate]:
    """The candidates that the answer may have; with `exclude_seen`, not those of the user's history.

    An item is in the history by its id, or by its text where the history has no id.
    """
    if not request.exclude_seen:
        return request.candidates
    history = _items(request.user.history)
    ids = {item.id for item in history}
    texts = {same_text_key(item.text) for item in history if item.id is None}
    return [item for item in request.candidates if item.id not in ids and same_text_key(item.text) not in texts]
