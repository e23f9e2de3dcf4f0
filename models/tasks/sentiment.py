"""Market sentiment of a headline or post: positive, neutral or negative; and the topics that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from export.bundle import Bundle
from models.opinion.topics import OTHER, Topics, matcher_of
from models.opinion.topics_file import read_topics
from models.opinion.types import Document
from models.tasks.base import (
    MAX_ITEMS,
    ClassifierTask,
    Columns,
    Prediction,
    Strict,
    TaskOptions,
    Tensor,
    Text,
    TextRequest,
    not_blank,
    rounded,
)

MAX_ID = 512  # characters of a document_id; addresses of articles are ids
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_AHEAD = timedelta(days=1)  # clocks differ


def parse_published(value: Any) -> datetime:
    """The time that an RFC 3339 text with a zone means. Raises ValueError, also for times that cannot be right."""
    if isinstance(value, datetime):
        time = value
    else:
        form = _RFC_3339.fullmatch(value) if isinstance(value, str) else None
        if form is None:
            raise ValueError("is not a time as RFC 3339 writes it, such as 2026-11-29T21:38:16Z")
        if form[2] is None:
            raise ValueError("has no zone; end it with Z for UTC, or with an offset such as +09:00")
        try:
            time = datetime.fromisoformat(value.upper())
        except ValueError as error:
            raise ValueError(f"is not a time that exists: {error}") from None
    if time.tzinfo is None:
        raise ValueError("has no zone")
    if time < _EPOCH:
        raise ValueError("lies before 1970")
    if time > datetime.now(UTC) + _MAX_AHEAD:
        raise ValueError("lies more than a day in the future")
    return time


Topic = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=100)]
Published = Annotated[datetime, BeforeValidator(parse_published)]
DocumentId = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_ID)]
_TOPIC = Field(None, examples=["airlines"], description="what it is about; without it, topics are found in the text")
_PUBLISHED = Field(
    None,
    examples=["2026-11-27T09:30:00Z"],
    description="when it appeared, with its zone, from 1970 on; without it, now",
)
_DOCUMENT_ID = Field(
    None,
    examples=["wire-20261127-0093"],
    description="its id at its source: a document sent again is not counted again",
)


class SentimentDocument(Strict):
    """A text with what is known of it."""

    text: Text = Field(examples=["Airline warns on profit as fuel costs bite"])
    topic: Topic | None = _TOPIC
    published: Published | None = _PUBLISHED
    document_id: DocumentId | None = _DOCUMENT_ID

    @field_validator("text")
    @classmethod
    def _not_blank(cls, text: str) -> str:
        return not_blank(text)


class SentimentRequest(TextRequest):
    """`text`, `texts` or `documents`; one prediction a text, in order. `topic` holds for all of `texts`."""

    text: Text | None = Field(None, examples=["Airline warns on profit as fuel costs bite"])
    topic: Topic | None = _TOPIC
    published: Published | None = _PUBLISHED
    document_id: DocumentId | None = _DOCUMENT_ID
    documents: list[SentimentDocument] | None = Field(None, min_length=1, max_length=MAX_ITEMS, fail_fast=True)

    @model_validator(mode="after")
    def _text_or_texts(self) -> Self:
        if sum(given is not None for given in (self.text, self.texts, self.documents)) != 1:
            raise ValueError("give one of 'text', 'texts' and 'documents'")
        if self.text is None and (self.published is not None or self.document_id is not None):
            raise ValueError(
                "'published' and 'document_id' are of one text; of several, give each its own in 'documents'"
            )
        if self.documents is not None and self.topic is not None:
            raise ValueError("give each of the 'documents' its own 'topic'")
        return self

    def all_texts(self) -> list[str]:
        return super().all_texts() if self.documents is None else [document.text for document in self.documents]

    def all_topics(self) -> list[str | None]:
        """The topic that the client gave each text, if any."""
        if self.documents is not None:
            return [document.topic for document in self.documents]
        return [self.topic] * (1 if self.texts is None else len(self.texts))

    def all_documents(self) -> Iterator[tuple[str, datetime | None, str | None]]:
        """(text, published, document_id) of each text."""
        if self.documents is not None:
            return ((document.text, document.published, document.document_id) for document in self.documents)
        return ((text, self.published, self.document_id) for text in self.all_texts())


def _read_if_named(value: Any) -> Any:
    if value is None or isinstance(value, Topics):
        return value
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ValueError("must be the name of a file of topics")
    return read_topics(Path(value).expanduser())


class SentimentOptions(TaskOptions):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    topics: Annotated[Topics | None, BeforeValidator(_read_if_named)] = Field(
        None, description="a file of topics with their words (docs/opinion.md), or what was read from it"
    )

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.topics is None else self.topics.notes


class Sentiment(ClassifierTask):
    name = "sentiment"
    summary = "Market opinion of a headline or post: positive, neutral or negative, and its topics."
    Request = SentimentRequest
    Options = SentimentOptions
    inputs = (
        Tensor("text", "BYTES"),
        Tensor("topic", "BYTES", optional=True),
        Tensor("published", "BYTES", optional=True),
        Tensor("document_id", "BYTES", optional=True),
    )
    outputs = (*ClassifierTask.outputs, Tensor("topics", "BYTES", optional=True))
    example = {
        "text": "Airline warns on profit as fuel costs bite",
        "topic": "airlines",
        "published": "2026-11-27T09:30:00Z",
        "document_id": "wire-20261127-0093",
    }

    options: SentimentOptions

    def __init__(self, bundle: Bundle, options: TaskOptions | None = None):
        super().__init__(bundle, options)
        self._topics = self.options.topics
        self._matcher = None if self._topics is None else matcher_of(self._topics)

    def topic(self, request: SentimentRequest) -> str | None:
        return request.topic

    def prediction(self, request: TextRequest, row: NDArray[np.float32]) -> Prediction:
        answer: dict[str, Any] = super().prediction(request, row)
        answer["scores"] = {label: rounded(score) for label, score in zip(self.labels, row, strict=True)}
        return answer

    def decode(self, request: Any, output: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
        predictions = super().decode(request, output, truncated)
        texts = request.all_texts()
        for prediction, text, topic in zip(predictions, texts, request.all_topics(), strict=True):
            prediction["topics"] = self._topics_of(text, topic)
        return predictions

    def _topics_of(self, text: str, given: str | None) -> list[str]:
        """The topic that the client gave, as the file of topics writes it; else those found, or `other`."""
        if given is not None:
            return [given if self._topics is None else self._topics.canonical(given)]
        return (self._matcher.topics(text) if self._matcher is not None else []) or [OTHER]

    def documents(
        self, request: SentimentRequest, predictions: Sequence[Prediction], prediction_id: str, at: datetime
    ) -> list[Document]:
        return [
            Document(
                document_id=document_id or f"{prediction_id}/{index}",
                text=text,
                published=published or at,
                topics=tuple(prediction["topics"]),
                label=prediction["label"],
                score=prediction["score"],
                prediction_id=prediction_id,
                at=at,
            )
            for index, ((text, published, document_id), prediction) in enumerate(
                zip(request.all_documents(), predictions, strict=True)
            )
        ]

    @classmethod
    def request_from_tensors(cls, tensors: Columns) -> dict[str, Any]:
        """An element is for a text; an empty one of an optional tensor is left out."""
        texts = tensors["text"]
        given = {tensor.name: tensors[tensor.name] for tensor in cls.inputs[1:] if tensors.get(tensor.name)}
        if not given:
            return super().request_from_tensors(tensors)
        for name, values in given.items():
            if len(values) != len(texts):
                raise ValueError(f"{name!r} has {len(values)} elements, and 'text' has {len(texts)}")
        rows = zip(*given.values(), strict=True)
        return {
            "documents": [
                {"text": text, **{name: value for name, value in zip(given, row, strict=True) if value != ""}}
                for text, row in zip(texts, rows, strict=True)
            ]
        }

    @classmethod
    def tensors_from_predictions(cls, predictions: Sequence[Prediction]) -> dict[str, list[Any]]:
        """`topics` is a JSON list in a string, since a tensor has one element for each text."""
        columns = super().tensors_from_predictions(predictions)
        return {**columns, "topics": [orjson.dumps(topics).decode() for topics in columns["topics"]]}
