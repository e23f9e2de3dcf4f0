"""Explanations of a request's predictions: which words gave each text its label.

The encoder reads a text once without each of its words. These readings are admitted, queued and batched as texts are,
behind shorter requests. They are not cached: they would push out answers that clients ask for, and what is left of a
text may be a text that a client asks for too, and that the linear reader answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from export.explain import MAX_WORDS, Explanation, explain
from export.tokenizer import Ids
from export.word_spans import Word
from models.tasks.base import ClassifierTask, Prediction
from serve.engine.loaded_model import LoadedVersion, Output
from serve.errors import InvalidRequest

_DECIMALS = 4  # of log-odds; what batches of other sizes change by their order of summation is a hundredth of the last


class Explainer:
    """Explains the answers of `version` to one request.

    - `rows`: the token ids of each text; `words`: its words.
    - `by_linear`: for each text, whether the linear reader answers it alone.
    """

    def __init__(
        self,
        version: LoadedVersion,
        texts: Sequence[str],
        rows: Sequence[Ids],
        words: Sequence[Sequence[Word]],
        by_linear: Sequence[bool],
    ):
        self._version, self._texts, self._rows, self._words, self._by_linear = version, texts, rows, words, by_linear
        self._left_out = [
            [] if linear else [word.left_out(ids) for word in of_text]
            for ids, of_text, linear in zip(rows, words, by_linear, strict=True)
        ]
        self._to_run = list(dict.fromkeys(ids for of_text in self._left_out for ids in of_text))

    @classmethod
    async def of_request(
        cls,
        version: LoadedVersion,
        texts: Sequence[str],
        rows: Sequence[Ids],
        early: Sequence[Output | None],
        max_words: int,
    ) -> Explainer:
        """For the answers to `texts`, whose token ids are `rows`; `early` as of LoadedVersion.early_answers.

        Raises InvalidRequest when they have more than `max_words`, as words are counted in an explanation.
        """
        words = await version.encoder.words(texts, min(MAX_WORDS, max_words))
        if (count := sum(map(len, words))) > max_words:
            raise InvalidRequest(
                f"explain: the {len(texts)} texts have {count} words; at most {max_words} are explained in one "
                "request. Send fewer texts in each",
                limit=max_words,
            )
        only_linear = version.model.session is None
        return cls(version, texts, rows, words, [only_linear or found is not None for found in early])

    def tokens_to_run(self, is_cached: Callable[[Ids], bool]) -> int:
        """The number of tokens that the encoder has to read for the explanations, whatever is cached."""
        return sum(map(len, self._to_run))

    async def add_to(
        self,
        predictions: Sequence[Prediction],
        output: Output,
        deadline: float,
        disconnected: Callable[[], bool] = bool,
    ) -> None:
        """Give each prediction its `explanation`. `output` is what they were decoded from.

        Raises what Batcher.submit does.
        """
        task = cast(ClassifierTask, self._version.task)
        answers = _logarithms(task, output)
        readings: dict[Ids, Any] = {}
        if self._to_run:
            left_out = await self._version.batcher.submit(self._to_run, deadline, disconnected, cached=False)
            readings = dict(zip(self._to_run, _logarithms(task, left_out), strict=True))
        for i, prediction in enumerate(predictions):
            label = _index(task.labels, prediction.get("label"), answers[i])
            found = None if self._by_linear[i] else self._stacked(readings, i, len(task.labels))
            readers, words = self._version.model.readers, self._words[i]
            explanation = explain(readers, self._rows[i], words, label, answers[i], found)
            prediction["explanation"] = shown(task.labels[label], self._texts[i], words, explanation)

    def _stacked(self, readings: dict[Ids, Any], text: int, labels: int) -> Any:
        found = [readings[ids] for ids in self._left_out[text]]
        return np.stack(found) if found else np.zeros((0, labels))


def shown(label: str, text: str, words: Sequence[Word], explanation: Explanation) -> dict[str, Any]:
    """An explanation as clients get it. Its numbers are rounded, and then sum to the total again."""
    contributions = [round(float(value), _DECIMALS) for value in explanation.contributions]
    total = round(explanation.total, _DECIMALS)
    return {
        "label": label,
        "words": [
            {"word": text[word.start : word.end], "start": word.start, "end": word.end, "contribution": value}
            for word, value in zip(words, contributions, strict=True)
        ],
        "rest": round(total - sum(contributions), _DECIMALS),
        "total": total,
    }


def _logarithms(task: ClassifierTask, activated: Output) -> Any:
    """(texts, labels): logits up to a constant for each text."""
    return np.log(np.maximum(task.probabilities(activated), np.finfo(np.float32).tiny).astype(np.float64))


def _index(labels: Sequence[str], label: Any, answer: Any) -> int:
    """The label's index; that of the most probable one, if a task of its own names its answers otherwise."""
    return labels.index(label) if label in labels else int(answer.argmax())
