"""What this replica writes to the feedback store: answers, some time later, and corrections, before they are confirmed.

One thread a replica does it, off the hot path: whatever has gathered while the last transaction was written goes into
the next, so that a burst of corrections costs a few commits. Personal data is taken out here, before the disk.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel

from models.feedback.pii import prepare, redact, redact_json
from models.feedback.pseudonyms import UserHasher
from models.feedback.store import Store, StoreUnavailable
from models.feedback.types import LoggedPrediction, NewFeedback, Receipt
from serve.config import FeedbackConfig
from serve.errors import NotReady, Overloaded
from serve.metrics import Metrics

log = logging.getLogger("flywheel.recorder")

FLUSH_S = 0.5  # an answer is in the store this long after it was given
_PATIENCE_S = 2.0  # for other writers, or a database that does not answer; the client is then told to come again
_RETRY_AFTER_S = 5
_MOST_WAITING = 20_000  # corrections; they are held for clients who wait for them
_MOST_AT_ONCE = 2_000
_MOST_CHARACTERS = 4_000  # of a text, as a model may read; looking for personal data takes time for each
T = TypeVar("T")


@dataclass(slots=True)
class _Asked:
    """Corrections of one request, and where the answer goes."""

    items: Sequence[NewFeedback]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Receipt]]
    since: float = field(default_factory=time.monotonic)

    def answer(self, receipts: list[Receipt] | None, error: Exception | None = None) -> None:
        def settle() -> None:
            if self.future.done():  # the client left; what it sent is stored or refused all the same
                return
            if error is not None:
                self.future.set_exception(error)
            else:
                self.future.set_result(receipts or [])

        self.loop.call_soon_threadsafe(settle)


class Recorder:
    """The store's writer in one process. `log` and `feedback` are for the event loop, the rest for any thread."""

    def __init__(self, url: str, hasher: UserHasher, settings: FeedbackConfig, metrics: Metrics):
        self.store = Store(url, patience_s=_PATIENCE_S)
        """connects when it is asked; whoever uses it from here must expect it to be unreachable"""
        self._hasher = hasher
        self._settings = settings
        self._metrics = metrics
        self._answers: deque[LoggedPrediction] = deque()
        self._asked: deque[_Asked] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what is there, then end. Blocking, and bounded by the store's patience."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(2 * _PATIENCE_S + FLUSH_S)
        self.store.close()

    def log(self, prediction: LoggedPrediction) -> None:
        """Keep an answer for the next flush. Never blocks: a full buffer drops it, and counts it.

        Its input may be a pydantic model: that becomes JSON here, later.
        """
        sample = self._settings.log.sample
        if sample < 1.0 and random.random() >= sample:
            return
        if len(self._answers) >= self._settings.log.buffer:
            self._metrics.unlogged("full")
            return
        self._answers.append(prediction)

    async def feedback(self, items: Sequence[NewFeedback]) -> list[Receipt]:
        """Store corrections; they are durable when this returns.

        Raises NotReady when the store cannot take them now, Overloaded when too many wait already.
        """
        if self._waiting + len(items) > _MOST_WAITING:
            raise Overloaded("too many corrections wait to be stored; try again later", retry_after=_RETRY_AFTER_S)
        loop = asyncio.get_running_loop()
        asked = _Asked(items, loop, loop.create_future())
        with self._changed:
            self._waiting += len(items)
            self._asked.append(asked)
            self._changed.notify()
        return await asked.future

    def hashed(self, user: str | None) -> str | None:
        return None if user is None else self._hasher.hashed(user)

    async def ask(self, question: Callable[[Store], T]) -> T:
        """Let `question` read the store, off the event loop. Raises NotReady when the store does not answer."""
        try:
            return await asyncio.to_thread(lambda: question(self.store))
        except StoreUnavailable as error:
            raise _unavailable(error) from error

    async def flush(self) -> None:
        """Return when all that was logged before is in the store, or has been tried."""
        await self.feedback([])

    def _work(self) -> None:
        try:
            prepare()
        except Exception:
            log.exception("the recorder could not load what finds personal data")
        due = time.monotonic() + FLUSH_S
        while True:
            with self._changed:
                while not self._asked and not self._stopping and (left := due - time.monotonic()) > 0:
                    self._changed.wait(left)
                stopping = self._stopping
                asked = self._taken()
            # Answers first: a correction may follow its answer at once.
            if asked or stopping or time.monotonic() >= due:
                self._write_answers()
                due = time.monotonic() + FLUSH_S
            if asked:
                self._write_feedback(asked)
            if stopping and not self._asked:
                return

    def _taken(self) -> list[_Asked]:
        taken: list[_Asked] = []
        items = 0
        while self._asked and (not taken or items + len(self._asked[0].items) <= _MOST_AT_ONCE):
            taken.append(self._asked.popleft())
            items += len(taken[-1].items)
        self._waiting -= items
        return taken

    def _write_answers(self) -> None:
        """All that is there now, a transaction for each `_MOST_AT_ONCE`, until the store cannot take one."""
        left = len(self._answers)
        while left > 0:
            rows = [self._answers.popleft() for _ in range(min(left, _MOST_AT_ONCE))]
            left -= len(rows)
            try:
                self.store.predictions.log([self._clean(row) for row in rows])
            except StoreUnavailable as error:
                self._answers.extendleft(reversed(rows))
                log.warning("the prediction log waits: %s", error)
                return
            except Exception:
                self._metrics.unlogged("failed", len(rows))
                log.exception("%d answers could not be logged", len(rows))

    def _write_feedback(self, asked: Sequence[_Asked]) -> None:
        try:
            items = [_redacted(item) for one in asked for item in one.items]
            receipts = self.store.feedback.add(items, keep_days=self._settings.log.keep_days)
        except StoreUnavailable as error:
            for one in asked:
                one.answer(None, _unavailable(error))
        except Exception as error:
            log.exception("corrections could not be stored")
            if len(asked) == 1:
                asked[0].answer(None, error)
            else:  # what is wrong with one request must not fail the others
                for one in asked:
                    self._write_feedback([one])
        else:
            at = 0
            for one in asked:
                one.answer(receipts[at : at + len(one.items)])
                at += len(one.items)

    def _plain(self, value: Any) -> Any:
        """A request as JSON. One that names its user does so in `user.id`, as a ranking does."""
        if not isinstance(value, BaseModel):
            return value
        plain = value.model_dump(mode="json")
        user = plain.get("user")
        if isinstance(user, dict) and user.get("id") is not None:
            user["id"] = self._hasher.hashed(user["id"])
        return plain

    def _clean(self, row: LoggedPrediction) -> LoggedPrediction:
        return LoggedPrediction(  # `replace` takes twice as long
            id=row.id,
            task=row.task,
            version=row.version,
            input=redact_json(self._plain(row.input), _MOST_CHARACTERS),
            output=redact_json(row.output),
            at=row.at,
            topic=row.topic and redact(row.topic),
            user=self.hashed(row.user),
        )


def _redacted(item: NewFeedback) -> NewFeedback:
    """An item's id as well, or one that looks like a card would not be found in the ranking that was logged."""
    return replace(item, text=item.text and redact(item.text), item_id=item.item_id and redact(item.item_id))


def _unavailable(error: StoreUnavailable) -> NotReady:
    return NotReady(f"the feedback store cannot be reached: {error}", retry_after=_RETRY_AFTER_S)


def now() -> datetime:
    return datetime.now(UTC)
