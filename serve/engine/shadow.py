"""A challenger in shadow mode: it repeats the champion's requests, unseen by clients, and the outputs are compared."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from models.tasks.base import Prediction
from serve.engine.loaded_model import LoadedVersion, decoded
from serve.metrics import Metrics

log = logging.getLogger("flywheel.shadow")


class Shadow:
    """Compares the field `key` of the predictions, one request at a time, and only while no other request is delayed.

    `timeout_s` bounds the challenger's time for one request.
    """

    def __init__(self, metrics: Metrics, key: str, timeout_s: float):
        self._metrics = metrics
        self._key = key
        self._timeout_s = timeout_s
        self._comparison: asyncio.Task[None] | None = None

    def compare(
        self,
        challenger: LoadedVersion,
        request: Any,
        predictions: Sequence[Prediction],
        *,
        busy: bool,
    ) -> None:
        """Start a comparison, or count it as skipped when the replica is busy. Returns at once."""
        if busy or (self._comparison is not None and not self._comparison.done()):
            self._metrics.shadow(challenger.version, "busy", len(predictions))
            return
        self._comparison = asyncio.create_task(self._compare(challenger, request, predictions))

    async def _compare(self, challenger: LoadedVersion, request: Any, predictions: Sequence[Prediction]) -> None:
        try:
            texts = challenger.task.texts(request)  # not the champion's: a ranker reads only items that it has not met
            encoded = await challenger.encoder.encode(texts)
            rows = [row.ids for row in encoded]
            early = await challenger.early_answers(rows)
            output = await challenger.outputs(rows, early, time.monotonic() + self._timeout_s)
            answered = sum(found is not None for found in early)
            self._metrics.texts(challenger.version, "linear", answered)
            self._metrics.texts(challenger.version, challenger.model.stages[-1], len(texts) - answered)
            truncated = [row.truncated for row in encoded]
            shadow_predictions = await decoded(challenger, request, texts, output, truncated)
        except Exception as error:  # any error is the challenger's; the client already has its response
            log.warning("version %s failed in shadow: %s", challenger.version, type(error).__name__)
            self._metrics.shadow(challenger.version, "failed", len(predictions))
            return
        agree = sum(
            one[self._key] == other[self._key] for one, other in zip(predictions, shadow_predictions, strict=True)
        )
        self._metrics.shadow(challenger.version, "agree", agree)
        self._metrics.shadow(challenger.version, "differ", len(predictions) - agree)
