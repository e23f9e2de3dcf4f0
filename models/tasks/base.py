"""The Task interface: what differs between intent, sentiment and recommendation.

A task converts a request to texts, and the model's output to predictions. The server, the batcher and the exporter
depend only on this interface; a new task is a new file in `models/tasks` and an entry in `flywheel.yaml`.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, field_validator, model_validator

from export.bundle import Bundle, Kind
from export.heads import softmax
from models.knowledge.types import Match
from models.opinion.types import Document
from models.tasks.confidence import bounds_of
from models.tasks.event_names import EVENT_KINDS, check_event
from models.tasks.thresholds import Thresholds
from models.users import UserName

if TYPE_CHECKING:
    from models.tasks.wishes import WishRule

Datatype = Literal["BYTES", "FP32", "INT32", "BOOL"]
Prediction = dict[str, Any]
Columns = Mapping[str, Sequence[Any]]

# The limit of every request, whatever the configuration allows: parsing more would block the event loop for seconds.
# For the same reason a list is refused at its first invalid element.
MAX_ITEMS = 4096

Text = Annotated[str, StringConstraints(strict=True)]


class UnknownTaskError(Exception):
    """Raised when a task named in flywheel.yaml or on the command line has no class in `models/tasks`."""


class Tensor(NamedTuple):
    """One tensor of the task's Open Inference Protocol signature.

    An `optional` input may be left out of a request. An `optional` output may be missing in a prediction, and
    `tensors_from_predictions` then has a value for it.
    """

    name: str
    datatype: Datatype
    optional: bool = False


CONFIDENCE = Tensor("confidence", "BYTES", optional=True)
"""of a classifier's answer; a task of its own may leave it out of its predictions"""


class Strict(BaseModel):
    """Base of all requests and options: unknown keys are errors, so that typos are found."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def not_blank(text: str) -> str:
    """The text. Raises ValueError when it has no visible character."""
    # The first character decides for almost every text, and a request may have thousands.
    if not text[:1].isalnum() and not any(c.isprintable() and not c.isspace() for c in text):
        raise ValueError("the text is empty")
    return text


class TextRequest(Strict):
    """`{"text": "..."}` or `{"texts": ["...", ...]}`; one prediction a text, in order."""

    text: Text | None = Field(None, examples=["where is my order 88231?"])
    texts: list[Text] | None = Field(None, min_length=1, max_length=MAX_ITEMS, fail_fast=True)
    explain: StrictBool = Field(
        False, description="adds to each prediction the contribution of each word to its label (docs/explanations.md)"
    )
    details: StrictBool = Field(
        False,
        examples=[True],
        description="adds `stages` to each prediction: the readers of its text. `linear` alone: answered early",
    )

    @model_validator(mode="after")
    def _text_or_texts(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either 'text' or 'texts'")
        return self

    @field_validator("text")
    @classmethod
    def _text_not_blank(cls, text: str | None) -> str | None:
        return text if text is None else not_blank(text)

    @field_validator("texts")
    @classmethod
    def _texts_not_blank(cls, texts: list[str] | None) -> list[str] | None:
        for i, text in enumerate(texts or ()):
            try:
                not_blank(text)
            except ValueError as error:
                raise ValueError(f"texts[{i}]: {error}") from None
        return texts

    def all_texts(self) -> list[str]:
        return [self.text] if self.text is not None else list(self.texts or ())


class TaskOptions(Strict):
    """The task's own options in its entry under `tasks:` in flywheel.yaml."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd in the options, or in files that they name, as sentences for who starts the server."""
        return ()


class Correction(Protocol):
    """The fields of a correction that a task validates; models.feedback.types documents them."""

    @property
    def id(self) -> str | None: ...
    @property
    def label(self) -> str | None: ...
    @property
    def item_id(self) -> str | None: ...
    @property
    def event(self) -> str | None: ...
    @property
    def value(self) -> float | None: ...


class Task(ABC):
    """One task, bound to one bundle. Instances are stateless between requests and thread-safe."""

    name: ClassVar[str]
    summary: ClassVar[str]
    kind: ClassVar[Kind]
    Request: ClassVar[type[Strict]]
    Options: ClassVar[type[TaskOptions]] = TaskOptions
    inputs: ClassVar[tuple[Tensor, ...]]
    outputs: ClassVar[tuple[Tensor, ...]]
    parameters: ClassVar[tuple[str, ...]] = ()
    """the fields of a request that an OIP inference request may give among its `parameters`"""
    example: ClassVar[dict[str, Any]]
    max_length: ClassVar[int] = 128
    gate: ClassVar[Thresholds] = Thresholds()
    supports_drift_test: ClassVar[bool] = False
    """whether a prediction is the score of one text, whose distribution models.evaluation.drift can compare"""
    part_field: ClassVar[str]
    """the field of a correction that names the part of the answer it is about"""
    part_name: ClassVar[str]
    """the plural noun for these parts"""
    correction_example: ClassVar[dict[str, Any]]
    """an example of a correction, for the documentation"""
    uses_knowledge: ClassVar[bool] = False
    """whether its predictions may have an entry of the knowledge base"""

    def __init__(self, bundle: Bundle, options: TaskOptions | None = None):
        self.labels = bundle.manifest.labels
        self.options = options if options is not None else self.Options()

    def fault(self, request: Any) -> str | None:
        """What is wrong with a valid request for this version, as `field: sentence`; None when it can be answered."""
        return None

    @abstractmethod
    def texts(self, request: Any) -> list[str]:
        """The texts on which the model must run for this request, in the order in which `decode` gets their outputs."""

    def activate(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """Transform the model's output for a batch, (texts, labels or dimensions), for `decode`, all texts at once."""
        return output

    @abstractmethod
    def decode(self, request: Any, output: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
        """The predictions. `output` is that of `activate` for `texts`; `truncated`, (texts,): whether each was cut."""

    @classmethod
    @abstractmethod
    def request_from_tensors(cls, tensors: Columns) -> dict[str, Any]:
        """Convert flattened OIP input tensors to the JSON of a request. Raises ValueError."""

    @classmethod
    @abstractmethod
    def correction_error(cls, correction: Correction, labels: Sequence[str], *, new_labels: bool) -> str | None:
        """Why a correction is invalid for this task, as `field: sentence`; None when it is valid.

        `labels` are the champion's; `new_labels` is whether others may be learned.
        """

    def logged_input(self, request: Any, texts: Sequence[str]) -> Any:
        """What the prediction log stores of a request, as JSON: all that learning from a correction needs."""
        return request

    def user(self, request: Any) -> UserName | None:
        """The user whose data the request has, if it names one."""
        return None

    def topic(self, request: Any) -> str | None:
        """The topic of the request, if it names one; logged with the prediction."""
        return None

    def documents(
        self, request: Any, predictions: Sequence[Prediction], prediction_id: str, at: datetime
    ) -> list[Document]:
        """What opinion monitoring counts of an answer given at the time `at`: one document a text, in order."""
        return []

    def explains(self, request: Any) -> bool:
        """Whether the request asks for the contribution of each word to its text's label."""
        return False

    def asks_knowledge(self, request: Any, prediction: Prediction | None) -> bool:
        """Whether the knowledge base is to be asked for this prediction; with None, for all of the request."""
        return False

    def language(self, request: Any) -> str | None:
        """The language of the request's texts, if it names one (BCP 47)."""
        return None

    def add_match(self, prediction: Prediction, match: Match | None) -> None:
        """Add the entry that the knowledge base has for a prediction; None when it has none."""
        raise NotImplementedError(f"{self.name} does not use the knowledge base")

    def draws(self, request: Any) -> bool:
        """Whether chance has a part in the answer, so that two versions cannot be compared by their answers to it."""
        return False

    @property
    def wishes(self) -> WishRule | None:
        """How several wishes in one text are found; None: they are not looked for."""
        return None

    def wants_details(self, request: Any) -> bool:
        """Whether the request asks how its predictions came about."""
        return False

    @classmethod
    def tensors_from_predictions(cls, predictions: Sequence[Prediction]) -> dict[str, list[Any]]:
        """Convert predictions to the columns of `outputs`, one row a prediction."""
        return {tensor.name: [prediction[tensor.name] for prediction in predictions] for tensor in cls.outputs}


class ClassifierTask(Task):
    """A task that predicts one of the bundle's labels for each text. Subclasses usually override only `prediction`."""

    kind = "classifier"
    supports_drift_test = True
    part_field, part_name = "index", "texts"
    correction_example = {"label": "a label"}
    Request: ClassVar[type[Strict]] = TextRequest
    inputs: ClassVar[tuple[Tensor, ...]] = (Tensor("text", "BYTES"),)
    outputs: ClassVar[tuple[Tensor, ...]] = (Tensor("label", "BYTES"), Tensor("score", "FP32"), CONFIDENCE)

    def __init__(self, bundle: Bundle, options: TaskOptions | None = None):
        super().__init__(bundle, options)
        self.confidence = bounds_of(bundle.manifest)

    def texts(self, request: TextRequest) -> list[str]:
        return request.all_texts()

    def activate(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        return softmax(output)

    def decode(self, request: TextRequest, output: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
        predictions = [self.prediction(request, row) for row in output]
        for prediction, cut in zip(predictions, truncated, strict=True):
            if cut:
                prediction["truncated"] = True
        return predictions

    def explains(self, request: TextRequest) -> bool:
        return request.explain

    def probabilities(self, activated: NDArray[np.float32]) -> NDArray[np.float32]:
        """(texts, labels), from the output of `activate` for a batch; explanations are computed from them."""
        return activated[:, : len(self.labels)]

    def wants_details(self, request: TextRequest) -> bool:
        return request.details

    def prediction(self, request: TextRequest, row: NDArray[np.float32]) -> Prediction:
        """The prediction for one text from its row of `activate`: here the probabilities, (labels,)."""
        best = int(row.argmax())
        score = float(row[best])
        return {"label": self.labels[best], "score": rounded(score), "confidence": self.confidence.word(score)}

    @classmethod
    def request_from_tensors(cls, tensors: Columns) -> dict[str, Any]:
        return {"texts": list(tensors["text"])}

    @classmethod
    def tensors_from_predictions(cls, predictions: Sequence[Prediction]) -> dict[str, list[Any]]:
        """An optional output is a text, empty where a prediction has none."""
        return {
            tensor.name: [
                prediction.get(tensor.name, "") if tensor.optional else prediction[tensor.name]
                for prediction in predictions
            ]
            for tensor in cls.outputs
        }

    @classmethod
    def correction_error(cls, correction: Correction, labels: Sequence[str], *, new_labels: bool) -> str | None:
        if correction.label is None:
            return "label: the right label is needed"
        if correction.item_id is not None or correction.event is not None:
            return "item_id: only a ranking has items and events"
        if correction.value is not None:
            return "value: only events of a ranking have values"
        if correction.label not in labels and not new_labels:
            return (
                f"label: {cls.name} has no label {correction.label!r}, and takes no new ones "
                f"(tasks.{cls.name}.new_labels in flywheel.yaml)"
            )
        return None

    def logged_input(self, request: TextRequest, texts: Sequence[str]) -> list[str]:
        return list(texts)

    @classmethod
    def assets(cls, model: Any, texts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        """Assets for the bundle, by name, made from training texts and the exported model."""
        return {}


class RankerTask(Task):
    """A task that scores the items of a request for one user. Its corrections are events of the user on an item."""

    kind = "ranker"
    part_field, part_name = "item_id", "items"
    correction_example = {"item_id": "an item", "event": "click"}

    @classmethod
    def correction_error(cls, correction: Correction, labels: Sequence[str], *, new_labels: bool) -> str | None:
        if correction.id is None or correction.item_id is None or correction.event is None:
            return "body: a correction of a ranking needs 'id', 'item_id' and 'event'"
        try:
            check_event(correction.event, correction.value)
        except ValueError as error:
            return f"{'value' if correction.event in EVENT_KINDS else 'event'}: {error}"
        return None if correction.label is None else "label: a ranking has none; give an 'event'"


def rounded(score: Any) -> float:
    """A score for clients: rounded to six decimals, more than quantization leaves significant."""
    return math.floor(float(score) * 1e6 + 0.5) / 1e6  # faster than `round`, which formats a string


@cache
def all_tasks() -> dict[str, type[Task]]:
    """All task classes by name, discovered in `models/tasks`."""
    import models.tasks as package

    found: dict[str, type[Task]] = {}
    for module in pkgutil.iter_modules(package.__path__):
        namespace = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
        for value in namespace.values():
            if isinstance(value, type) and issubclass(value, Task) and "name" in vars(value):
                found[value.name] = value
    return found


def get_task(name: str) -> type[Task]:
    """The task class called `name`. Raises UnknownTaskError, which lists the existing names."""
    try:
        return all_tasks()[name]
    except KeyError:
        raise UnknownTaskError(f"There is no task {name!r}; there are: {', '.join(sorted(all_tasks()))}.") from None
