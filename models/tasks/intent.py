"""Customer-service intent: what a customer wants, or that the request needs a person."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictBool

from export.bundle import Bundle
from export.heads import softmax
from models.knowledge.types import Match
from models.tasks.answering import Answering, AnsweringOptions, AnsweringRequest
from models.tasks.base import CONFIDENCE, ClassifierTask, Prediction, TaskOptions, Tensor, TextRequest, rounded
from models.tasks.wishes import WishRule

if TYPE_CHECKING:
    from export.model import Model

OUT_OF_SCOPE = "out_of_scope"
Reason = Literal["out_of_scope", "low_confidence", "asked_for_person", "nothing_known"]
"""why a person should answer; the last: neither a template nor the knowledge base has an answer to the intent"""
_REASON = Tensor("reason", "BYTES", optional=True)
# Known questions a label: enough to cover its wordings, few enough to compare with each uncertain request.
_QUESTIONS_A_LABEL = 20
_MAX_QUESTION = 120  # characters
# The matrix of known questions has a column a label: with many labels there are fewer of each, so that it stays small.
_MAX_KNOWN_LOGITS = 4_000_000
_MAX_CANDIDATES = 20_000  # texts that the model reads to choose them: minutes
_OUT_OF_SCOPE_FROM = 0.5  # probability above which it exceeds that of all intents together
_NOT_SEARCHED = -2.0  # less than any cosine


class IntentRequest(AnsweringRequest):
    """A text or texts of customers, with what is known about them, and whether to ask the knowledge base."""

    knowledge: StrictBool | None = Field(
        None,
        examples=[True],
        description="true: ask the knowledge base for every text; false: for none; default: for those without answer",
    )


class IntentOptions(AnsweringOptions):
    handoff_below: float = Field(0.5, ge=0, le=1, description="scores under this are handed to a person")
    top_k: int = Field(3, ge=1, le=20, description="how many candidate intents an answer lists")
    person_labels: tuple[str, ...] = Field(
        ("contact_human_agent",), description="labels of customers who ask for a person: their texts are handed off"
    )
    several_intents: bool = Field(True, description="look for several wishes in one text: `intents`")
    nearest_above: float = Field(0.6, ge=-1, le=1, description="minimum cosine of a known question that is offered")


class Intent(ClassifierTask):
    """Adds to the label: the top k, entities, an answer, the nearest known question, and `handoff` with its reason.

    Out-of-scope is a label of the model like any other. It is predicted only when it is more likely than all intents
    together, since a wrong refusal costs a customer more than a wrong suggestion with a low score.
    """

    name = "intent"
    summary = "What a customer wants, with an answer, or a hand-off to a person."
    Request = IntentRequest
    Options = IntentOptions
    uses_knowledge = True
    outputs = (Tensor("label", "BYTES"), Tensor("score", "FP32"), Tensor("handoff", "BOOL"), CONFIDENCE, _REASON)
    example = {"text": "where is my order 88231?"}
    options: IntentOptions

    def __init__(self, bundle: Bundle, options: TaskOptions | None = None):
        super().__init__(bundle, options)
        self._out_of_scope = self.labels.index(OUT_OF_SCOPE) if OUT_OF_SCOPE in self.labels else None
        self._wishes = WishRule(self.labels, self._out_of_scope) if self.options.several_intents else None
        self._answers = Answering(self.options)
        known = bundle.asset("known_questions") or {"texts": [], "logits": []}
        self._known_texts: list[str] = known["texts"]
        logits = np.asarray(known["logits"], np.float32).reshape(len(self._known_texts), len(self.labels))
        self._known = np.ascontiguousarray(_directions(logits).T)
        self._ranks = min(max(2, self.options.top_k), len(self.labels))  # the second replaces out-of-scope
        # A text with at least this probability gets the label, and is not handed off.
        self._confident_from = max(self.options.handoff_below, _OUT_OF_SCOPE_FROM)

    @property
    def wishes(self) -> WishRule | None:
        return self._wishes

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
            self._answers.add_to(prediction, text, request)
        return predictions

    def prediction(self, request: TextRequest, row: NDArray[np.float32]) -> Prediction:
        probabilities = row.tolist()  # for so few numbers, a list is faster than numpy
        nearest, similarity, *ranked = probabilities[len(self.labels) :]
        top = [int(rank) for rank in ranked]
        best = top[0]
        if best == self._out_of_scope and probabilities[best] < _OUT_OF_SCOPE_FROM and len(top) > 1:
            best = top[1]
        label, score = self.labels[best], probabilities[best]
        reason = self._reason(best, score)
        answer: Prediction = {
            "label": label,
            "score": rounded(score),
            "confidence": self.confidence.word(score),
            "handoff": reason is not None,
            "top_k": [{"label": self.labels[i], "score": rounded(probabilities[i])} for i in top[: self.options.top_k]],
        }
        if reason is not None:
            answer["reason"] = reason
        if reason == "low_confidence" and similarity >= self.options.nearest_above:
            answer["nearest"] = {"question": self._known_texts[int(nearest)], "similarity": rounded(similarity)}
        return answer

    def _reason(self, label: int, score: float) -> Reason | None:
        """Why a person should answer a text with the label of this number; None: nobody need."""
        if label == self._out_of_scope:
            return "out_of_scope"
        if score < self.options.handoff_below:
            return "low_confidence"
        return "asked_for_person" if self.labels[label] in self.options.person_labels else None

    def asks_knowledge(self, request: IntentRequest, prediction: Prediction | None) -> bool:
        if request.knowledge is not None:
            return request.knowledge
        return prediction is not None and "answer" not in prediction

    def language(self, request: IntentRequest) -> str | None:
        return request.language

    def add_match(self, prediction: Prediction, match: Match | None) -> None:
        """The known questions of the training texts, which have no answer, are not offered beside a knowledge base."""
        prediction.pop("nearest", None)
        if match is not None:
            prediction["nearest"] = {
                "question": match.question,
                "answer": match.answer,
                "similarity": match.similarity,
                "id": match.id,
            }
        elif not prediction["handoff"] and "answer" not in prediction:
            prediction["handoff"], prediction["reason"] = True, "nothing_known"

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
