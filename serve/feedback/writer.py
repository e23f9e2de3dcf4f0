"""A replica's writes to the feedback store: predictions after a delay, corrections before they are confirmed.

One thread per replica writes, off the hot path. What arrives during one transaction goes into the next, so that a burst
of corrections costs few commits. Personal data is redacted here, before anything is written to disk.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel

from models.entities import Registry, package_registry
from models.feedback.pii import prepare, redactor_of
from models.feedback.pseudonyms import UserHasher
from models.feedback.store import Store, StoreError
from models.feedback.types import LoggedPrediction, NewDocument, NewFeedback, Receipt
from models.opinion.types import Document
from models.users import UserName, user_name
from serve import tracing
from serve.config import FeedbackConfig
from serve.errors import NotReady, Overloaded
from serve.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

log = logging.getLogger("flywheel.prediction_logger")

FLUSH_S = 0.5  # interval between writes of the buffered predictions
_STORE_TIMEOUT_S = 2.0  # for the write lock, or a database that does not answer; then the client is told to retry
_CONFIRM_TIMEOUT_S = 10.0  # for a disk that neither writes nor fails; then the client is told to retry
_RETRY_AFTER_S = 5
_PAUSE_S = 0.0002  # after the redaction of a ranking
_MAX_QUEUED = 20_000  # corrections whose clients wait for the confirmation
_MAX_PER_TRANSACTION = 2_000  # predictions or corrections
_MAX_DOCUMENTS = 50_000  # texts that wait to be stored for opinion monitoring, some 20 MB
_MAX_LINKED = 100  # traced requests that the span of one write names
_MAX_CHARACTERS = 4_000  # kept of a text, more than any model reads; redaction takes time for each character
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _PendingFeedback:
    """The corrections of one request, and the future that its handler awaits."""

    items: Sequence[NewFeedback]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Receipt]]
    span: SpanContext | None
    """of the request, when it is traced"""

    def resolve(self, receipts: list[Receipt] | None, error: Exception | None = None) -> None:
        """Set the result or the error of the future, from the writer's thread."""

        def settle() -> None:
            if self.future.done():  # the client disconnected; its corrections are stored or refused all the same
                return
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(receipts or [])

        self.loop.call_soon_threadsafe(settle)


class _SentDocuments(NamedTuple):
    """The documents of one answer, in the order of its texts, and who sent them."""

    task: str
    documents: list[Document]
    user: UserName | None


class PredictionLogger:
    """Writes one replica's predictions and corrections to the store.

    Call `log` and `feedback` on the event loop; the other methods are thread-safe.
    """

    def __init__(
        self,
        url: str,
        hasher: UserHasher,
        settings: FeedbackConfig,
        metrics: Metrics,
        registry: Registry | None = None,
    ):
        """`registry`: the types of entities of the task, whose personal ones are replaced in what is written."""
        self.store = Store(url, patience_s=_STORE_TIMEOUT_S, observe=metrics.store)
        """connects on first use; a caller that uses it directly must handle StoreError"""
        redactor = redactor_of(registry or package_registry())
        self._redact, self._redact_json = redactor.redact, redactor.redact_json
        self._hasher = hasher
        self._settings = settings
        self._metrics = metrics
        self._predictions: deque[LoggedPrediction] = deque()
        self._traced: deque[SpanContext] = deque(maxlen=_MAX_LINKED)
        """the spans of requests whose predictions are buffered"""
        self._documents: deque[_SentDocuments] = deque()
        self._buffered_documents = 0
        self._documents_lock = threading.Lock()
        self._pending: deque[_PendingFeedback] = deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._writing_since = math.inf
        """time.monotonic when the write in progress began"""
        self._writing_from: datetime | None = None
        """when the oldest prediction of the write in progress was made"""
        metrics.log_lag(self.lag_s)
        self._outage = ""
        """why the last predictions could not be written; empty when they were"""
        # Threads of its own: queries that wait for a disk must not take those of the tokenizer.
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="feedback-reader")
        self._thread = threading.Thread(target=self._work, name="prediction-logger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write everything that is buffered, then end the thread. Blocks, for a few store timeouts at most."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(2 * _STORE_TIMEOUT_S + FLUSH_S)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self.store.close()

    def log(self, prediction: LoggedPrediction) -> None:
        """Buffer a prediction for the next flush. Never blocks: when the buffer is full, it is dropped and counted.

        Its `input` may be a pydantic model, as of a ranking. It waits as JSON, one object instead of hundreds, through
        which the garbage collector would walk while the event loop stands still.
        """
        sample = self._settings.log.sample
        if sample < 1.0 and random.random() >= sample:
            return
        if len(self._predictions) >= self._settings.log.buffer:
            self._metrics.unlogged("full")
            return
        if isinstance(prediction.input, BaseModel):
            prediction = replace(prediction, input=prediction.input.model_dump_json().encode())
        self._predictions.append(prediction)
        if (span := tracing.sampled()) is not None:
            self._traced.append(span)

    def log_documents(self, task: str, documents: list[Document], user: UserName | None) -> None:
        """Buffer an answer's documents for the next flush, whatever share of the answers is logged.

        Never blocks: when the buffer is full, they are dropped and counted.
        """
        if self._buffered_documents + len(documents) > _MAX_DOCUMENTS:
            self._metrics.uncounted("full", len(documents))
            return
        with self._documents_lock:
            self._buffered_documents += len(documents)
        self._documents.append(_SentDocuments(task, documents, user))

    async def feedback(self, items: Sequence[NewFeedback]) -> list[Receipt]:
        """Store corrections; they are durable when this returns.

        Raises NotReady when the store is unavailable or does not confirm them in time, Overloaded when too many
        corrections are queued already.
        """
        if self._queued + len(items) > _MAX_QUEUED:
            raise Overloaded("too many corrections wait to be stored; try again later", retry_after=_RETRY_AFTER_S)
        if time.monotonic() - self._writing_since > _CONFIRM_TIMEOUT_S:  # who comes now would wait in vain
            raise self._no_answer()
        loop = asyncio.get_running_loop()
        pending = _PendingFeedback(items, loop, loop.create_future(), tracing.sampled())
        with self._changed:
            self._queued += len(items)
            self._pending.append(pending)
            self._changed.notify()
        try:
            return await asyncio.wait_for(pending.future, _CONFIRM_TIMEOUT_S)
        except TimeoutError:
            self._withdraw(pending)
            raise self._no_answer() from None

    def _no_answer(self) -> NotReady:
        sentence = f"the feedback store does not answer for {_CONFIRM_TIMEOUT_S:g} s; send this again, it counts once"
        return NotReady(sentence, retry_after=_RETRY_AFTER_S)

    def _withdraw(self, pending: _PendingFeedback) -> None:
        """Take a request out of the queue, if the writer has not begun with it."""
        with self._changed:
            if pending in self._pending:
                self._pending.remove(pending)
                self._queued -= len(pending.items)

    def lag_s(self) -> float:
        """Age in seconds of the oldest prediction that is not in the store yet; 0 when none waits."""
        with suppress(IndexError):  # the writer may take the only one in between
            oldest = self._writing_from or (self._predictions[0].at if self._predictions else None)
            return max(0.0, (now() - oldest).total_seconds()) if oldest is not None else 0.0
        return 0.0

    def hash_user(self, user: UserName | None) -> str | None:
        return None if user is None else self._hasher.hashed(user)

    async def query(self, read: Callable[[Store], T]) -> T:
        """Return `read(store)`, run in a thread. Raises NotReady when the store is unavailable or does not answer."""
        reading = asyncio.get_running_loop().run_in_executor(self._readers, read, self.store)
        try:
            with tracing.span("store read"):
                return await asyncio.wait_for(reading, _CONFIRM_TIMEOUT_S)
        except StoreError as error:
            raise _unavailable(error) from error
        except TimeoutError:
            sentence = f"the feedback store does not answer for {_CONFIRM_TIMEOUT_S:g} s"
            raise NotReady(sentence, retry_after=_RETRY_AFTER_S) from None

    async def flush(self) -> None:
        """Return once everything logged before this call was written, or its write failed."""
        await self.feedback([])

    def _work(self) -> None:
        try:
            prepare()
        except Exception:
            log.exception("the prediction logger could not load the detector of personal data")
        due = time.monotonic() + FLUSH_S
        while True:
            with self._changed:
                while not self._pending and not self._stopping and (left := due - time.monotonic()) > 0:
                    self._changed.wait(left)
                stopping = self._stopping
                pending = self._next_pending()
            self._writing_since = time.monotonic()
            # Predictions before corrections: a correction may refer to a prediction that is still buffered.
            if pending or stopping or time.monotonic() >= due:
                self._write_predictions()
                due = time.monotonic() + FLUSH_S
            if pending:
                self._write_feedback(pending)
            self._writing_since = math.inf
            if stopping and not self._pending:
                return

    def _next_pending(self) -> list[_PendingFeedback]:
        """Dequeue the requests whose corrections fit into one transaction, at least one. The caller holds the lock."""
        taken: list[_PendingFeedback] = []
        items = 0
        while self._pending and (not taken or items + len(self._pending[0].items) <= _MAX_PER_TRANSACTION):
            taken.append(self._pending.popleft())
            items += len(taken[-1].items)
        self._queued -= items
        return taken

    def _write_predictions(self) -> None:
        """Write what is buffered now, `_MAX_PER_TRANSACTION` at a time, until a write finds the store unavailable."""
        left, left_documents = len(self._predictions), len(self._documents)
        while left > 0 or left_documents > 0:
            rows = [self._predictions.popleft() for _ in range(min(left, _MAX_PER_TRANSACTION))]
            sent = self._next_documents(left_documents)
            left, left_documents = left - len(rows), left_documents - len(sent)
            texts = sum(len(item.documents) for item in sent)
            self._writing_from = rows[0].at if rows else None
            try:
                redacted = list(self._redacted_predictions(rows))
                documents = self._redacted_documents(sent, redacted)
                with tracing.batch_span("store predictions", self._take_traced(), _count(redacted)):
                    self.store.predictions.log(redacted, documents)
            except StoreError as error:
                self._predictions.extendleft(reversed(rows))
                self._documents.extendleft(reversed(sent))
                self._writing_from = None
                if str(error) != self._outage:  # once, and not twice a second, perhaps onto the full disk itself
                    log.warning("predictions stay buffered, the store is unavailable: %s", error)
                self._outage = str(error)
                return
            except Exception:
                self._metrics.unlogged("failed", len(rows))
                self._metrics.uncounted("failed", texts)
                log.exception("%d predictions and %d documents could not be stored", len(rows), texts)
            else:
                if self._outage:
                    log.warning("predictions are logged again")
                self._outage = ""
            self._writing_from = None
            with self._documents_lock:
                self._buffered_documents -= texts

    def _take_traced(self) -> list[SpanContext]:
        return [self._traced.popleft() for _ in range(len(self._traced))]

    def _next_documents(self, at_most: int) -> list[_SentDocuments]:
        """Dequeue the documents of at most so many answers, as fit into one transaction, of one answer at least."""
        taken: list[_SentDocuments] = []
        texts = 0
        while len(taken) < at_most and (not taken or texts + len(self._documents[0].documents) <= _MAX_PER_TRANSACTION):
            taken.append(self._documents.popleft())
            texts += len(taken[-1].documents)
        return taken

    def _redacted_documents(
        self, sent: Sequence[_SentDocuments], rows: Sequence[LoggedPrediction]
    ) -> list[NewDocument]:
        """The documents without personal data. Texts of `rows`, redacted already, are not redacted twice."""
        known = {row.id: row.input for row in rows}
        found: list[NewDocument] = []
        for task, documents, user in sent:
            hashed = self.hash_user(user)
            texts = known.get(documents[0].prediction_id)
            if not isinstance(texts, list) or len(texts) != len(documents):
                texts = [self._redact(document.text[:_MAX_CHARACTERS]) for document in documents]
            found += [
                NewDocument(task, self._redacted_document(document, text), hashed)
                for document, text in zip(documents, texts, strict=True)
            ]
        return found

    def _redacted_document(self, document: Document, text: str) -> Document:
        id_ = document.document_id
        if not id_.startswith(document.prediction_id):
            id_ = self._item_id(id_, self._redact(id_))
        return replace(document, document_id=id_, text=text, topics=tuple(map(self._redact, document.topics)))

    def _write_feedback(self, pending: Sequence[_PendingFeedback]) -> None:
        try:
            items = [self._redacted_feedback(item) for request in pending for item in request.items]
            with tracing.batch_span("store feedback", [request.span for request in pending], _count(items)):
                receipts = self.store.feedback.add(items, keep_days=self._settings.log.keep_days)
        except StoreError as error:
            for request in pending:
                request.resolve(None, _unavailable(error))
        except Exception as error:
            log.exception("corrections could not be stored")
            if len(pending) == 1:
                pending[0].resolve(None, error)
            else:  # one faulty request must not fail the others
                for request in pending:
                    self._write_feedback([request])
        else:
            at = 0
            for request in pending:
                request.resolve(receipts[at : at + len(request.items)])
                at += len(request.items)

    def _redacted_request(self, request: bytes, output: Any) -> tuple[orjson.Fragment, Any]:
        """A ranking's request and output. The user's id (`user.id`) is hashed, and the ids of items stay apart."""
        plain = orjson.loads(request)
        user = plain.get("user")
        if isinstance(user, dict) and user.get("id") is not None:
            user["id"] = self.hash_user(user_name(user["id"]))
        input_, kept = self._redact_json(plain, _MAX_CHARACTERS), self._redact_json(output)
        for items, redacted in zip(_items(plain, output), _items(input_, kept), strict=True):
            self._keep_items_apart(items, redacted)
        return orjson.Fragment(orjson.dumps(input_)), kept

    def _redacted_predictions(self, rows: Sequence[LoggedPrediction]) -> Iterator[LoggedPrediction]:
        """The rows without personal data, with a pause after each ranking, which takes half a millisecond.

        The event loop needs the interpreter's lock many times for a request, and would wait 5 ms for it each time.
        """
        for row in rows:
            yield self._redacted_prediction(row)
            if isinstance(row.input, bytes) and not self._stopping:
                time.sleep(_PAUSE_S)

    def _redacted_prediction(self, row: LoggedPrediction) -> LoggedPrediction:
        if isinstance(row.input, bytes):
            input_, output = self._redacted_request(row.input, row.output)
        else:
            input_, output = self._redact_json(row.input, _MAX_CHARACTERS), self._redact_json(row.output)
        return LoggedPrediction(  # dataclasses.replace takes twice as long
            id=row.id,
            task=row.task,
            version=row.version,
            input=input_,
            output=output,
            at=row.at,
            topic=row.topic and self._redact(row.topic),
            user=self._hashed(row.user),
            subject=self._hashed(row.subject),
        )

    def _keep_items_apart(self, items: list[Any], redacted: list[Any]) -> None:
        """Set the ids of `redacted` items; `items` are those as they came."""
        for item, kept in zip(items, redacted, strict=True):
            if isinstance(item, dict) and isinstance(item.get("id"), str):
                kept["id"] = self._item_id(item["id"], kept["id"])

    def _item_id(self, id_: str, redacted: str) -> str:
        """The id under which an item is kept: two items never have one id, as two phone numbers would.

        Digits alone are kept, since they are the number of an article: a ranker knows its items by their ids, and two
        in three numbers of ten digits could be a phone's. Other personal data is replaced, with a keyed hash behind it.
        """
        id_ = id_[:_MAX_CHARACTERS]
        if redacted == id_ or id_.isdecimal():
            return id_
        return f"{redacted} {self._hasher.digest(id_)}"

    def _redacted_feedback(self, item: NewFeedback) -> NewFeedback:
        """`item` with its text redacted, and its item id as in the logged ranking, or the two would not match."""
        item_id = item.item_id and self._item_id(item.item_id, self._redact(item.item_id))
        return replace(item, text=item.text and self._redact(item.text), item_id=item_id)

    def _hashed(self, name: str | None) -> str | None:
        return None if name is None else self.hash_user(user_name(name))


def _count(rows: Sequence[object]) -> dict[str, int]:
    return {"flywheel.rows": len(rows)}


def _items(request: dict[str, Any], output: list[Any]) -> list[list[Any]]:
    """The lists of items in a ranking's request and answer."""
    user = request.get("user")
    history = user.get("history") if isinstance(user, dict) else None
    return [items for items in (request.get("candidates"), history, output) if isinstance(items, list)]


def _unavailable(error: StoreError) -> NotReady:
    return NotReady(f"the feedback store cannot be reached: {error}", retry_after=_RETRY_AFTER_S)


def now() -> datetime:
    return datetime.now(UTC)
