"""The knowledge base in a process: its index and encoder, kept in line with the store, and asked by a replica.

A process without entries to search loads no encoder. What blocks (the store, the disk, the encoder) runs in threads, so
that a request that does not ask the knowledge base notices nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import LRUCache

from export.errors import BundleError
from export.tokenizer import Ids
from models.feedback.store import Store, StoreError
from models.home import sentence_encoder_folder
from models.knowledge.index import MIN_SIMILARITY, Floats, KnowledgeIndex, Query
from models.knowledge.types import Match
from models.tasks.base import Prediction, Task
from serve.errors import DeadlineExceeded, Overloaded
from serve.logs import without_message

if TYPE_CHECKING:
    from models.knowledge.encoder import SentenceEncoder

log = logging.getLogger("flywheel.knowledge")

_FOLLOW_EVERY_S = 2.0
_RETRY_AFTER_S = 10.0  # after a refresh that failed: the database, or the disk, may be back by then
_SECONDS_A_TEXT = 0.005  # until one was measured
_DECAY = 0.1  # weight of the newest measurement


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The index of one revision of the knowledge base."""

    index: KnowledgeIndex
    revision: int


class KnowledgeBase:
    """The entries that have a vector, of the revision that was read last. `refresh` and `search` block; thread-safe.

    `cache_size`: vectors of texts that are kept, by token ids.
    """

    def __init__(self, home: Path, store: Store, cache_size: int = 0):
        self._home, self._store = home, store
        self._encoder: SentenceEncoder | None = None
        self._refreshing = threading.Lock()
        self._caching = threading.Lock()
        self._vectors: LRUCache[Ids, Floats] = LRUCache(cache_size)
        self.snapshot = Snapshot(KnowledgeIndex.empty(), -1)

    def refresh(self) -> None:
        """Take up the changes since the last refresh. Raises StoreError, and any error of opening the encoder."""
        with self._refreshing:
            revision = self._store.knowledge.revision()
            if revision != self.snapshot.revision:
                # The revision was read first: what changes while the entries are read is read again the next time.
                self.snapshot = Snapshot(self._read(), revision)

    def _read(self) -> KnowledgeIndex:
        encoder, index = self._opened(), self.snapshot.index
        if encoder is None:
            return KnowledgeIndex.empty()
        there = self._store.knowledge.serials(encoder.fingerprint)
        kept = there & {entry.serial for entry in index.entries}
        new = list(self._store.knowledge.read(encoder.fingerprint, there - kept))
        entries, vectors = [entry for entry, _ in new], [np.frombuffer(vector, np.float16) for _, vector in new]
        return index.updated(kept, entries, vectors)

    def _opened(self) -> SentenceEncoder | None:
        """The encoder; None as long as no entry has a vector."""
        if self._encoder is None and self._store.knowledge.has_vectors():
            from models.knowledge.encoder import SentenceEncoder  # with onnxruntime

            self._encoder = SentenceEncoder.open(self._home)
            if self._encoder is None:
                raise BundleError(f"{sentence_encoder_folder(self._home)} has no encoder, which the entries need")
        return self._encoder

    def search(
        self, text: str, language: str | None, limit: int = 1, min_similarity: float = MIN_SIMILARITY
    ) -> list[Match]:
        """The entries nearest to the text, as `KnowledgeIndex.search` gives them."""
        index = self.snapshot.index
        if self._encoder is None or not index.entries:
            return []
        [ids] = self._encoder.tokens([text])
        return index.search(Query(self._vector(ids), language), limit, min_similarity)

    def _vector(self, ids: Ids) -> Floats:
        assert self._encoder is not None
        with self._caching:
            vector = self._vectors.get(ids)
        if vector is None:
            vector = self._encoder.vector(ids)
            if self._vectors.maxsize:
                with self._caching:
                    self._vectors[ids] = vector
        return vector


class KnowledgeFollower:
    """A replica's knowledge base: follows the store, and answers requests. Call `start` and `ask` on the event loop.

    `max_wait_s`: returns how long a text may wait before requests are refused.
    """

    def __init__(self, base: KnowledgeBase, min_similarity: float, max_wait_s: Callable[[], float]):
        self._base, self._min_similarity, self._max_wait_s = base, min_similarity, max_wait_s
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="knowledge")
        self._follower = ThreadPoolExecutor(1, thread_name_prefix="knowledge-follower")
        self._following: asyncio.Task[None] | None = None
        self._queued = 0
        self._seconds = _SECONDS_A_TEXT
        self._logged = ""

    def start(self) -> None:
        self._following = asyncio.create_task(self._follow(), name="knowledge-follower")

    async def stop(self) -> None:
        if self._following is not None:
            self._following.cancel()
        for executor in (self._searcher, self._follower):
            executor.shutdown(wait=False, cancel_futures=True)

    @property
    def is_empty(self) -> bool:
        return not self._base.snapshot.index.entries

    @property
    def metadata(self) -> dict[str, int]:
        """The numbers of entries and of changes of what this replica searches."""
        snapshot = self._base.snapshot
        return {"entries": len(snapshot.index.entries), "revision": max(snapshot.revision, 0)}

    async def _follow(self) -> None:
        """Never ends: a replica goes on with what it has while the store is away."""
        while True:
            pause = _FOLLOW_EVERY_S
            try:
                await asyncio.get_running_loop().run_in_executor(self._follower, self._base.refresh)
                self._logged = ""
            except Exception as error:  # of the store, the disk, memory or onnxruntime
                pause = _FOLLOW_EVERY_S if isinstance(error, StoreError) else _RETRY_AFTER_S
                reason = str(error) if isinstance(error, StoreError) else without_message(error)
                problem = f"the knowledge base stays at revision {self._base.snapshot.revision}: {reason}"
                if problem != self._logged:
                    log.warning(problem)
                self._logged = problem
            await asyncio.sleep(pause)

    def ask(self, texts: Sequence[str], language: str | None) -> asyncio.Future[list[Match | None]]:
        """The nearest entry of each text, or None; computed in a thread from now on. Raises Overloaded."""
        wait = (self._queued + len(texts)) * self._seconds
        if self._queued and wait > self._max_wait_s():
            raise Overloaded(
                f"the knowledge base is busy for the next {wait:.1f} s; try again later", retry_after=math.ceil(wait)
            )
        self._queued += len(texts)
        asked = asyncio.get_running_loop().run_in_executor(self._searcher, self._find, texts, language)
        asked.add_done_callback(lambda asked: self._answered(asked, len(texts)))
        return asked

    def _answered(self, asked: asyncio.Future[list[Match | None]], texts: int) -> None:
        self._queued -= texts
        if not asked.cancelled():
            asked.exception()  # of a request that has failed otherwise, nobody looks at it

    def _find(self, texts: Sequence[str], language: str | None) -> list[Match | None]:
        started = time.perf_counter()
        found = [self._base.search(text, language, 1, self._min_similarity) for text in texts]
        took = (time.perf_counter() - started) / len(texts)
        self._seconds += _DECAY * (took - self._seconds)
        return [matches[0] if matches else None for matches in found]


class Asking:
    """Asks the knowledge base for one request. What the request itself asks for is searched while its texts run."""

    def __init__(self, follower: KnowledgeFollower, task: Task, request: Any, texts: Sequence[str]):
        self._follower, self._task, self._request, self._texts = follower, task, request, texts
        self._language = task.language(request)
        self._early = follower.ask(texts, self._language) if task.asks_knowledge(request, None) else None

    async def add_to(self, predictions: Sequence[Prediction], deadline: float) -> None:
        """Give the predictions what was found. `deadline` is in time.monotonic.

        Raises Overloaded, and DeadlineExceeded when it passes first.
        """
        asked = [
            i for i, made in enumerate(predictions) if self._early or self._task.asks_knowledge(self._request, made)
        ]
        if not asked:
            return
        finding = self._early or self._follower.ask([self._texts[i] for i in asked], self._language)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                matches = await finding
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the knowledge base answered") from None
        for i, match in zip(asked, matches, strict=True):
            self._task.add_match(predictions[i], match)
