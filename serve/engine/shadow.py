"""A challenger in shadow: it answers what the champion answered, nobody sees it, and the two are compared."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from models.tasks.base import Prediction
from serve.engine.loaded_model import LoadedVersion
from serve.metrics import Metrics

log = logging.getLogger("flywheel.shadow")


class Shadow:
    """Compares by the field `key` of each prediction, one request at a time, and only where that delays nobody."""

    def __init__(self, metrics: Metrics, key: str, max_seconds: float):
        self._metrics = metrics
        self._key = key
        self._longest_s = max_seconds
        self._comparing: asyncio.Task[None] | None = None

    def compare(
        self,
        challenger: LoadedVersion,
        request: Any,
        texts: Sequence[str],
        predictions: Sequence[Prediction],
        *,
        busy: bool,
    ) -> None:
        """Begin, or count as not compared when the replica is busy. Returns at once."""
        if busy or (self._comparing is not None and not self._comparing.done()):
            self._metrics.shadow(challenger.version, "busy", len(predictions))
            return
        self._comparing = asyncio.create_task(self._compare(challenger, request, texts, predictions))

    async def _compare(
        self, challenger: LoadedVersion, request: Any, texts: Sequence[str], predictions: Sequence[Prediction]
    ) -> None:
        try:
            encoded = await challenger.encoder.encode(texts)
            rows = [row.ids for row in encoded]
            output = await challenger.batcher.submit(rows, time.monotonic() + self._longest_s)
            others = challenger.task.decode(request, output, [row.truncated for row in encoded])
        except Exception as error:  # whatever it is, it is the challenger's, and the client has its answer
            log.warning("version %s failed in shadow: %s", challenger.version, type(error).__name__)
            self._metrics.shadow(challenger.version, "failed", len(predictions))
            return
        agree = sum(one[self._key] == other[self._key] for one, other in zip(predictions, others, strict=True))
        self._metrics.shadow(challenger.version, "agree", agree)
        self._metrics.shadow(challenger.version, "differ", len(predictions) - agree)
