"""Computes the vectors of new and changed entries of the knowledge base; the encoder is made in a worker process."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.feedback.store import Store
from models.knowledge.types import VectorOf
from serve.controller.workers import Workers

if TYPE_CHECKING:
    from models.knowledge.encoder import SentenceEncoder

log = logging.getLogger("flywheel.controller")

_BATCH = 64  # entries: a tenth of a second
_STEP_S = 1.0  # other reconcilers share the loop
_RETRY_AFTER_S = 600.0  # after the encoder could not be made


class KnowledgeReconciler:
    """Gives entries their vectors, some in each step of the controller's loop. Without entries it loads nothing."""

    def __init__(self, home: Path, store: Store, workers: Workers):
        self._home, self._store, self._workers = home, store, workers
        self._encoder: SentenceEncoder | None = None
        self._making: Any = None
        self._retry_at = 0.0
        self._done = -1
        """the revision of which all entries have a vector"""
        self.behind = False
        """whether the last step left entries without a vector, so that the next one should follow at once"""

    def step(self) -> None:
        """Compute vectors until none is missing or a second has passed. Raises StoreError; the next step goes on."""
        self.behind = False
        revision = self._store.knowledge.revision()
        if revision == self._done:
            return
        if self._encoder is None and not self._store.knowledge.state().entries:
            self._done = revision
            return
        if (encoder := self._opened()) is None:
            return
        ends, fingerprint = time.monotonic() + _STEP_S, encoder.fingerprint
        while entries := self._store.knowledge.without_vector(fingerprint, _BATCH):
            vectors = encoder.stored([entry.question for entry in entries])
            found = [VectorOf(entry.serial, vector) for entry, vector in zip(entries, vectors, strict=True)]
            self._store.knowledge.set_vectors(fingerprint, found)
            if time.monotonic() > ends:
                self.behind = True
                return
            revision = self._store.knowledge.revision()
        self._done = revision

    def _opened(self) -> SentenceEncoder | None:
        """The encoder; None while it is being made, and for some minutes after that has failed."""
        if self._making is not None:
            if (problem := self._workers.poll(self._making)) is None:
                return None
            self._making = None
            if problem != "":
                reason = getattr(problem, "sentence", problem)  # of a Result, when the process was killed
                log.error("the knowledge base's encoder could not be made, entries are not found: %s", reason)
                self._retry_at = time.monotonic() + _RETRY_AFTER_S
        if self._encoder is None:
            from models.knowledge.encoder import SentenceEncoder  # with onnxruntime

            self._encoder = SentenceEncoder.open(self._home)
        if self._encoder is None and time.monotonic() >= self._retry_at:
            self._making = self._workers.start_sentence_encoder()
        return self._encoder
