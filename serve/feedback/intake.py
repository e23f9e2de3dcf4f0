"""`POST /v2/models/{task}/feedback`: corrections from users, one or many, confirmed only when they are durable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from models.feedback.pii import redact
from models.feedback.store import made_at
from models.feedback.types import NewFeedback, Receipt
from models.tasks.base import MAX_ITEMS, Strict, Task, not_blank
from serve.errors import Gone, InvalidRequest, NotFound, RequestError
from serve.feedback.writer import FLUSH_S, Recorder, now

_Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
_MOST_CHARACTERS = 4_000  # more than any model here reads
_LATE_S = 4 * FLUSH_S  # an answer younger than this may not be in the store yet


class Feedback(Strict):
    """A correction: the `id` of a prediction, or a `text`, and its right `label`; for a ranking `item_id` and `event`.

    Without `consent` nobody learns from it; it still counts in the live accuracy of the version that answered.
    """

    id: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64)] | None = None
    index: int | None = Field(
        None, ge=0, strict=True, description="which text of the prediction; needed if it had many"
    )
    text: Annotated[str, StringConstraints(strict=True, max_length=_MOST_CHARACTERS)] | None = None
    label: _Name | None = None
    item_id: _Name | None = None
    event: _Name | None = Field(None, description="what became of the item: view, click, like or buy")
    source: _Name = Field("unknown", description="who says so: a desk, an annotator, a page")
    consent: Annotated[bool, Field(strict=True)] = False
    user: _Name | None = Field(None, description="whose correction it is; stored as a keyed hash")

    @field_validator("text")
    @classmethod
    def _text_not_blank(cls, text: str | None) -> str | None:
        return text if text is None else not_blank(text)

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.id is None) == (self.text is None):
            raise ValueError("give either the 'id' of a prediction or a 'text'")
        if self.text is not None and self.index is not None:
            raise ValueError("'index' goes with 'id'")
        return self


class FeedbackBatch(Strict):
    """`{"feedback": [...]}`; one result an item, in order."""

    feedback: list[Feedback] = Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)


class FeedbackDesk:
    """Takes corrections of one task in. `labels` are those its champion knows."""

    def __init__(self, task: type[Task], recorder: Recorder, *, new_labels: bool, keep_days: float, most: int):
        self._task = task
        self._recorder = recorder
        self._new_labels = new_labels
        self._keep_days = keep_days
        self._most = most

    async def take(self, batch: Sequence[Feedback], labels: Sequence[str]) -> list[dict[str, Any]]:
        """One result an item: `{"status": "accepted" | "duplicate" | "replaced"}`, or an error of the contract's shape.

        What can be taken is taken. Raises NotReady when the store cannot be reached: then nothing was.
        """
        if len(batch) > self._most:
            raise InvalidRequest(f"feedback: {len(batch)} items in one request; at most {self._most} are allowed")
        errors = [self._error_of(item, labels) for item in batch]
        good = [item for item, error in zip(batch, errors, strict=True) if error is None]
        receipts = iter(await self._store([self._received(item) for item in good]) if good else [])
        return [
            error.body() if error is not None else self._result(item, next(receipts))
            for item, error in zip(batch, errors, strict=True)
        ]

    async def take_one(self, item: Feedback, labels: Sequence[str]) -> dict[str, Any]:
        """The result of one correction. Raises NotFound, Gone or InvalidRequest where it cannot be taken."""
        if (error := self._error_of(item, labels)) is not None:
            raise error
        (receipt,) = await self._store([self._received(item)])
        if (refused := self._refused(item, receipt)) is not None:
            raise refused
        return {"status": receipt.outcome}

    async def counts(self) -> dict[str, Any]:
        """Corrections by state, and how long the oldest has waited."""
        name = self._task.name
        counts, oldest = await self._recorder.ask(
            lambda store: (store.feedback.counts(name), store.feedback.oldest_waiting(name))
        )
        waited = None if oldest is None else round((now() - oldest).total_seconds(), 1)
        return {"model_name": name, "states": counts, "oldest_waiting_s": waited}

    async def _store(self, items: Sequence[NewFeedback]) -> list[Receipt]:
        receipts = await self._recorder.feedback(items)
        # A correction may overtake its answer, which another replica has not written yet: ask again, once.
        late = [i for i, r in enumerate(receipts) if r.outcome == "unknown_id" and _is_young(items[i])]
        if late:
            await asyncio.sleep(1.2 * FLUSH_S)
            for i, receipt in zip(late, await self._recorder.feedback([items[i] for i in late]), strict=True):
                receipts[i] = receipt
        return receipts

    def _received(self, item: Feedback) -> NewFeedback:
        return NewFeedback(
            task=self._task.name,
            source=item.source,
            consent=item.consent,
            at=now(),
            label=item.label,
            prediction_id=item.id,
            index=item.index,
            text=item.text,
            item_id=item.item_id,
            event=item.event,
            user=self._recorder.hashed(item.user),
        )

    def _error_of(self, item: Feedback, labels: Sequence[str]) -> RequestError | None:
        # Both are kept as they are, in the store and in reports: a placeholder would make one label or source of many.
        if _is_personal(item.source):
            return InvalidRequest(
                "source: this holds personal data; give a name that is nobody's, and who it was as 'user'"
            )
        if item.label is not None and item.label not in labels and _is_personal(item.label):
            return InvalidRequest("label: this holds personal data")
        error = self._task.correction_error(item, labels, new_labels=self._new_labels)
        return None if error is None else InvalidRequest(error)

    def _result(self, item: Feedback, receipt: Receipt) -> dict[str, Any]:
        refused = self._refused(item, receipt)
        return {"status": receipt.outcome} if refused is None else refused.body()

    def _refused(self, item: Feedback, receipt: Receipt) -> RequestError | None:
        if receipt.outcome == "unknown_id":
            return NotFound(f"there is no prediction {item.id!r} of {self._task.name}; send the text with its label")
        if receipt.outcome == "stale_id":
            return Gone(f"prediction {item.id!r} is older than {self._keep_days:g} days and was deleted; send the text")
        if receipt.outcome == "needs_index":
            return InvalidRequest(f"{self._task.part_field}: which of the prediction's {self._task.part_name}?")
        return None


@lru_cache(4096)  # there are few of them, each in many corrections
def _is_personal(name: str) -> bool:
    return redact(name) != name


def _is_young(item: NewFeedback) -> bool:
    made = made_at(item.prediction_id or "")
    return made is not None and (now() - made).total_seconds() < _LATE_S
