"""Customer-service intent: what a customer wants, and whether a machine should answer at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field

from export.bundle import Bundle
from models.task import ClassifierTask, Prediction, TaskOptions, Tensor, TextRequest, rounded

if TYPE_CHECKING:
    from export.session import OnnxSession

OUT_OF_SCOPE = "out_of_scope"
# Known questions kept a label: enough to cover its wordings, few enough to compare with on each unsure request.
_QUESTIONS_A_LABEL = 20


_LEAST_SCORE = 1e-30  # of what has none: its logarithm would be infinite


class IntentOptions(TaskOptions):
    handoff_below: float = Field(0.5, ge=0, le=1, description="scores under this are handed to a person")
    top_k: int = Field(3, ge=1, le=20, description="how many candidate intents an answer lists")
    nearest_above: float = Field(0.6, ge=-1, le=1, description="least cosine for a known question to be offered")


class Intent(ClassifierTask):
    """Adds to the label: the top k, an answer template, the nearest known question, and `handoff`.

    Out-of-scope is a label the model learns like any other. It is given only when it is more likely than all the
    intents together: a wrong refusal costs a customer more than a wrong suggestion with a low score.
    """

    name = "intent"
    summary = "What a customer wants, with an answer template, or a hand-off to a person."
    Options = IntentOptions
    outputs = (Tensor("label", "BYTES"), Tensor("score", "FP32"), Tensor("handoff", "BOOL"))
    example = {"text": "where is my order 88231?"}
    options: IntentOptions

    def __init__(self, bundle: Bundle, options: TaskOptions | None = None):
        super().__init__(bundle, options)
        self._out_of_scope = self.labels.index(OUT_OF_SCOPE) if OUT_OF_SCOPE in self.labels else None
        self._answers: dict[str, str] = bundle.asset("answers") or {}
        known = bundle.asset("known_questions") or {"texts": [], "logits": []}
        self._known_texts: list[str] = known["texts"]
        self._known = _directions(np.asarray(known["logits"], np.float32).reshape(len(self._known_texts), -1))

    def prediction(self, request: TextRequest, scores: NDArray[np.float32]) -> Prediction:
        shares = scores.tolist()  # so few numbers are ranked sooner than numpy has begun
        ranked = sorted(range(len(shares)), key=shares.__getitem__, reverse=True)
        best = ranked[0]
        if best == self._out_of_scope and shares[best] < 0.5 and len(ranked) > 1:
            best = ranked[1]
        label, score = self.labels[best], shares[best]
        handoff = best == self._out_of_scope or score < self.options.handoff_below
        answer: Prediction = {
            "label": label,
            "score": rounded(score),
            "handoff": handoff,
            "top_k": [{"label": self.labels[i], "score": rounded(shares[i])} for i in ranked[: self.options.top_k]],
        }
        if not handoff and label in self._answers:
            answer["answer"] = self._answers[label]
        if handoff and best != self._out_of_scope and (nearest := self._nearest(scores)):
            answer["nearest"] = nearest
        return answer

    def _nearest(self, scores: NDArray[np.float32]) -> dict[str, Any] | None:
        """The known question that the model sees most nearly like this text, if any is near enough."""
        if not self._known_texts:
            return None
        # `_directions` of one row in a third of its time; the length is the same for all, so that one needs it.
        logits = np.log(np.maximum(scores, _LEAST_SCORE))
        logits -= np.add.reduce(logits) / len(logits)
        products = self._known @ logits
        best = int(products.argmax())
        cosine = float(products[best]) / max(math.sqrt(logits @ logits), 1e-9)
        if cosine < self.options.nearest_above:
            return None
        return {"question": self._known_texts[best], "similarity": rounded(cosine)}

    @classmethod
    def assets(cls, session: OnnxSession, texts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
        """Answer templates for the labels we wrote them for, and the clearest known questions of each label."""
        templates = orjson.loads((files("models") / "seed" / "intent_answers.json").read_bytes())
        names = session.bundle.manifest.labels
        logits = session.predict(texts)
        kept: list[int] = []
        for index, name in enumerate(names):
            if name != OUT_OF_SCOPE:
                own = [i for i, label in enumerate(labels) if label == name and len(texts[i]) <= 120]
                kept += sorted(own, key=lambda i: -float(logits[i, index]))[:_QUESTIONS_A_LABEL]
        return {
            "answers": {label: text for label, text in templates.items() if label in names},
            "known_questions": {
                "texts": [texts[i] for i in kept],
                "logits": [[round(float(value), 3) for value in logits[i]] for i in kept],
            },
        }


def _directions(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where each row points, whatever its length and offset: logits and the logarithms of their softmax point alike."""
    centred: NDArray[np.float32] = logits - logits.mean(axis=-1, keepdims=True)
    centred /= np.maximum(np.sqrt(np.square(centred).sum(axis=-1, keepdims=True)), 1e-9)
    return centred
