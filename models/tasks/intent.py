"""Customer-service intent: what a customer wants, or that the request needs a person."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from export.bundle import Bundle
from export.heads import softmax
from models.entities import Registry, engine_of, package_registry, read_registry
from models.tasks.answers import (
    MAX_SLOTS,
    Answers,
    Default,
    Language,
    SlotName,
    SlotValue,
    no_slot,
    package_answers,
    read_answers,
)
from models.tasks.base import ClassifierTask, Prediction, TaskOptions, Tensor, Text, TextRequest, rounded

if TYPE_CHECKING:
    from export.model import Model

OUT_OF_SCOPE = "out_of_scope"
# Known questions a label: enough to cover its wordings, few enough to compare with each uncertain request.
_QUESTIONS_A_LABEL = 20
_MAX_QUESTION = 120  # characters
# The matrix of known questions has a column a label: with many labels there are fewer of each, so that it stays small.
_MAX_KNOWN_LOGITS = 4_000_000
_MAX_CANDIDATES = 20_000  # texts that the model reads to choose them: minutes
_OUT_OF_SCOPE_FROM = 0.5  # probability above which it exceeds that of all intents together
_NOT_SEARCHED = -2.0  # less than any cosine


class IntentRequest(TextRequest):
    """A text or texts, and what is known about who wrote them; `slots` and `language` hold for all of `texts`."""

    text: Text | None = Field(None, examples=["where is my order 88231?"])
    slots: dict[SlotName, SlotValue] = Field(
        {},
        max_length=MAX_SLOTS,
        examples=[{"customer_name": "Ann"}],
        description="values for the slots of answers, by name; they win over what is found in the text",
    )
    language: Language | None = Field(None, examples=["en"], description="of the answer, as BCP 47 writes it")


def _registry(value: Any) -> Any:
    return value if _is_read(value, Registry) else read_registry(_file(value, "entities"))


def _answers(value: Any) -> Any:
    return value if _is_read(value, Answers) else read_answers(_file(value, "answers"))


def _is_read(value: Any, kind: type) -> bool:
    """Whether it needs no file: None for the package's, `off`, which YAML reads as false, or what was read."""
    return value is None or value is False or isinstance(value, kind)


def _file(value: Any, what: str) -> Path:
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ValueError(f"must be the name of a file of {what}")
    return Path(value).expanduser()


class IntentOptions(TaskOptions):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    handoff_below: float = Field(0.5, ge=0, le=1, description="scores under this are handed to a person")
    top_k: int = Field(3, ge=1, le=20, description="how many candidate intents an answer lists")
    nearest_above: float = Field(0.6, ge=-1, le=1, description="minimum cosine of a known question that is offered")
    entities: Annotated[Registry | Literal[False] | None, BeforeValidator(_registry)] = Field(
        None,
        description="a file of types and words beside the package's, or what was read from it; off: none are found",
    )
    answers: Annotated[Answers | Literal[False] | None, BeforeValidator(_answers)] = Field(
        None, description="a file of answers in place of the package's, or what was read from it; off: none are given"
    )
    defaults: dict[SlotName, Default] = Field(
        {}, max_length=1000, description="values of slots that neither the request nor its text gives"
    )

    @property
    def registry(self) -> Registry | None:
        """The types that are found; None for none."""
        return None if self.entities is False else self.entities or package_registry()

    @model_validator(mode="after")
    def _slots_are_known(self) -> Self:
        for name, value in self.defaults.items():
            try:
                no_slot(value)
            except ValueError as error:
                raise ValueError(f"defaults.{name}: {error}") from None
        if self.answers:
            known = {*(self.registry.answered if self.registry else ()), *self.defaults}
            if faults := list(self.answers.unknown_slots(known)):
                raise ValueError("; ".join(faults[:10]))
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        return self.registry.notes if self.registry else ()


class Intent(ClassifierTask):
    """Adds to the label: the top k, entities, an answer, the nearest known question, and `handoff`.

    Out-of-scope is a label of the model like any other. It is predicted only when it is more likely than all intents
    together, since a wrong refusal costs a customer more than a wrong suggestion with a low score.
    """

    name = "intent"
    summary = "What a customer wants, with an answer, or a hand-off to a person."
    Request = IntentRequest
    Options = IntentOptions
    outputs = (Tensor("label", "BYTES"), Tensor("score", "FP32"), Tensor("handoff", "BOOL"))
    example = {"text": "where is my order 88231?"}
    options: IntentOptions

    def __init__(self, bundle: Bundle, options: TaskOptions | None = None):
        super().__init__(bundle, options)
        self._out_of_scope = self.labels.index(OUT_OF_SCOPE) if OUT_OF_SCOPE in self.labels else None
        templates = self.options.answers
        self._answers = (
            None if templates is False else (templates or package_answers()).with_defaults(self.options.defaults)
        )
        self._engine = engine_of(self.options.registry) if self.options.registry else None
        known = bundle.asset("known_questions") or {"texts": [], "logits": []}
        self._known_texts: list[str] = known["texts"]
        logits = np.asarray(known["logits"], np.float32).reshape(len(self._known_texts), len(self.labels))
        self._known = np.ascontiguousarray(_directions(logits).T)
        self._ranks = min(max(2, self.options.top_k), len(self.labels))  # the second replaces out-of-scope
        # A text with at least this probability gets the label, and is not handed off.
        self._confident_from = max(self.options.handoff_below, _OUT_OF_SCOPE_FROM)

    def activate(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """(texts, labels + 2 + ranks): probabilities; index and similarity of the nearest known question; best labels.

        The question is searched only if a text of the batch may need it, since the search takes longer than the softmax
        of a single text.
        """
        labels = len(self.labels)
        rows = np.empty((len(output), labels + 2 + self._ranks), np.float32)
        probabilities = softmax(output)
        rows[:, :labels] = probabilities
        rows[:, labels + 2 :] = (-probabilities).argsort(axis=-1, kind="stable")[:, : self._ranks]
        all_confident = float(np.minimum.reduce(np.maximum.reduce(probabilities, axis=-1))) >= self._confident_from
        if all_confident or not self._known_texts:
            rows[:, labels : labels + 2] = _NOT_SEARCHED
        else:
            directions = _directions(output)
            nearest = (directions @ self._known).argmax(axis=-1)
            rows[:, labels] = nearest
            # Not the value from the product: some processors round it differently for one text than for a batch.
            rows[:, labels + 1] = np.add.reduce(directions * self._known.T[nearest], axis=-1)
        return rows

    def decode(self, request: Any, output: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
        predictions = super().decode(request, output, truncated)
        for prediction, text in zip(predictions, request.all_texts(), strict=True):
            self._add_answer(prediction, text, request)
        return predictions

    def _add_answer(self, prediction: Prediction, text: str, request: IntentRequest) -> None:
        """Set `entities`, `answer` and `missing`, each only where there is one."""
        found = self._engine.entities(text) if self._engine else []
        if found:
            prediction["entities"] = [
                {"type": one.type, "value": one.value, "start": one.start, "end": one.end} for one in found
            ]
        if (
            not self._answers
            or prediction["label"] not in self._answers
            or (prediction["handoff"] and prediction.get("reason") != "asked_for_person")
        ):
            return
        # The first of several of one type; what the request gives wins.
        given = {**{one.type: one.value for one in reversed(found)}, **request.slots} if found else request.slots
        answer = self._answers.answer(prediction["label"], text, given, request.language)
        prediction["answer"] = answer.text
        if answer.missing:
            prediction["missing"] = answer.missing

    def prediction(self, request: TextRequest, row: NDArray[np.float32]) -> Prediction:
        probabilities = row.tolist()  # for so few numbers, a list is faster than numpy
        nearest, similarity, *ranked = probabilities[len(self.labels) :]
        top = [int(rank) for rank in ranked]
        best = top[0]
        if best == self._out_of_scope and probabilities[best] < _OUT_OF_SCOPE_FROM and len(top) > 1:
            best = top[1]
        label, score = self.labels[best], probabilities[best]
        handoff = best == self._out_of_scope or score < self.options.handoff_below
        answer: Prediction = {
            "label": label,
            "score": rounded(score),
            "handoff": handoff,
            "top_k": [{"label": self.labels[i], "score": rounded(probabilities[i])} for i in top[: self.options.top_k]],
        }
        if handoff and best != self._out_of_scope and similarity >= self.options.nearest_above:
            answer["nearest"] = {"question": self._known_texts[int(nearest)], "similarity": rounded(similarity)}
        return answer

    @classmethod
    def assets(cls, model: Model, texts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        """The known questions with the highest logits of each label."""
        names = model.bundle.manifest.labels
        each = _questions_a_label(len(names))
        known_texts, known_logits = [], []
        for index, candidates in _candidate_questions(
            texts, labels, names, _MAX_CANDIDATES // len(names) if each else 0
        ):
            logits = model.predict(candidates)
            best = (-logits[:, index]).argsort(kind="stable")[:each]
            known_texts += [candidates[i] for i in best]
            known_logits += [[round(float(value), 3) for value in logits[i]] for i in best]
        return {"known_questions": {"texts": known_texts, "logits": known_logits}}


def _questions_a_label(labels: int) -> int:
    return min(_QUESTIONS_A_LABEL, _MAX_KNOWN_LOGITS // labels**2)


def _candidate_questions(
    texts: Sequence[str], labels: Sequence[str], names: Sequence[str], max_candidates: int
) -> Iterator[tuple[int, list[str]]]:
    """(index of a label, some of its short texts), for each label but out-of-scope that has any."""
    of_label: dict[str, list[str]] = {name: [] for name in names if name != OUT_OF_SCOPE and max_candidates}
    for text, label in zip(texts, labels, strict=True):
        if label in of_label and len(text) <= _MAX_QUESTION:
            of_label[label].append(text)
    rng = random.Random(0)
    for index, name in enumerate(names):
        found = of_label.get(name, [])
        if len(found) > max_candidates:
            found = rng.sample(found, max_candidates)
        if found:
            yield index, found


def _directions(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows centred and scaled to unit length, so that logits and their log-softmax give the same direction."""
    centred: NDArray[np.float32] = logits - np.add.reduce(logits, axis=-1, keepdims=True) / max(logits.shape[-1], 1)
    centred /= np.maximum(np.sqrt(np.add.reduce(centred * centred, axis=-1, keepdims=True)), 1e-9)
    return centred
