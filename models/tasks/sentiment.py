"""Market sentiment of a headline or post: positive, neutral or negative."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

from models.tasks.base import ClassifierTask, Prediction, TextRequest, rounded


class SentimentRequest(TextRequest):
    """One or more texts, and the topic under which they were collected, which the answer repeats."""

    text: Annotated[str, StringConstraints(strict=True)] | None = Field(
        None, examples=["Airline warns on profit as fuel costs bite"]
    )
    topic: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=100)] | None = Field(
        None, examples=["airlines"]
    )


class Sentiment(ClassifierTask):
    name = "sentiment"
    summary = "Market opinion of a headline or post: positive, neutral or negative."
    Request = SentimentRequest
    example = {"text": "Airline warns on profit as fuel costs bite", "topic": "airlines"}

    def topic(self, request: TextRequest) -> str | None:
        return request.topic if isinstance(request, SentimentRequest) else None

    def prediction(self, request: TextRequest, row: NDArray[np.float32]) -> Prediction:
        answer: dict[str, Any] = super().prediction(request, row)
        answer["scores"] = {label: rounded(score) for label, score in zip(self.labels, row, strict=True)}
        if (topic := self.topic(request)) is not None:
            answer["topic"] = topic
        return answer
