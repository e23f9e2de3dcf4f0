"""`POST /v2/models/{task}/feedback`: one or many corrections, confirmed only once they are durable."""

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
from models.tasks.event_names import EVENT_NAMES
from models.users import UserName, require_user
from serve.errors import Gone, InvalidRequest, NotFound, RequestError
from serve.feedback.writer import FLUSH_S, PredictionLogger, now

_Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
_MAX_CHARACTERS = 4_000  # more than any model here reads
_MAYBE_UNWRITTEN_S = 4 * FLUSH_S  # an answer younger than this may not be in the store yet


class Feedback(Strict):
    """A correction: a prediction's `id` or a `text`, and the correct `label`; for a ranking, `item_id` and `event`.

    Of the events, a `rating` and a `dwell` have a `value`.

    Without `consent` no model is trained on it; it still counts in the live accuracy of the version that answered.
    """

    id: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64)] | None = None
    index: int | None = Field(
        None, ge=0, strict=True, description="which text of the prediction; needed if it had many"
    )
    text: Annotated[str, StringConstraints(strict=True, max_length=_MAX_CHARACTERS)] | None = None
    label: _Name | None = None
    # As long, and of any characters, as the id of a candidate may be; beyond this, the log has not kept it whole.
    item_id: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=_MAX_CHARACTERS)] | None = None
    event: _Name | None = Field(None, description=f"what the user did with the item: {', '.join(EVENT_NAMES)}")
    value: float | None = Field(
        None,
        strict=True,
        allow_inf_nan=False,
        description="of a `rating`, on the scale of training data; of a `dwell`, its seconds; other events have none",
    )
    source: _Name = Field(
        "unknown", description="where the correction comes from: a support desk, an annotator, a page"
    )
    consent: Annotated[bool, Field(strict=True)] = False
    user: Annotated[str, StringConstraints(strict=True, min_length=1)] | None = Field(
        None, description="the user who made the correction, by default that of x-user-id; stored as a keyed hash"
    )

    @field_validator("user")
    @classmethod
    def _user_not_blank(cls, user: str | None) -> str | None:
        if user is not None:
            require_user(user)
        return user

    @field_validator("text")
    @classmethod
    def _text_not_blank(cls, text: str | None) -> str | None:
        return text if text is None else not_blank(text)

    @model_validator(mode="after")
    def _id_or_text(self) -> Self:
        if (self.id is None) == (self.text is None):
            raise ValueError("give either the 'id' of a prediction or a 'text'")
        if self.text is not None and self.index is not None:
            raise ValueError("'index' is allowed only with 'id'")
        return self


class FeedbackBatch(Strict):
    """`{"feedback": [...]}`; one result per item, in order. Valid items are stored, whatever the others are."""

    # Any: the items are validated one by one.
    feedback: list[Any] = Field(
        min_length=1, max_length=MAX_ITEMS, json_schema_extra={"items": {"$ref": "#/components/schemas/Feedback"}}
    )


class FeedbackService:
    """Validates the corrections of one task and stores them.

    - `new_labels`: accept labels that the champion does not have.
    - `keep_days`: how long a logged prediction is kept, and can be corrected by its id.
    - `max_items`: corrections allowed in one request.

    The `labels` of its methods are the champion's.
    """

    def __init__(
        self,
        task: type[Task],
        prediction_logger: PredictionLogger,
        *,
        new_labels: bool,
        keep_days: float,
        max_items: int,
    ):
        self._task = task
        self._prediction_logger = prediction_logger
        self._new_labels = new_labels
        self._keep_days = keep_days
        self._max_items = max_items
        # Only a classifier can be corrected without a prediction.
        self._text_instead = "; send the text with its label" if task.kind == "classifier" else ""

    def check_count(self, count: int) -> None:
        """Raises InvalidRequest when a request has more than `max_items` items."""
        if count > self._max_items:
            raise InvalidRequest(
                f"feedback: {count} items in one request; at most {self._max_items} are allowed", limit=self._max_items
            )

    async def accept(
        self, batch: Sequence[Feedback | RequestError], labels: Sequence[str], sender: UserName | None = None
    ) -> list[dict[str, Any]]:
        """Store the valid items of `batch`; one result per item, in order. `sender` is the user of the request.

        An item that is not a Feedback at all is given as its error. A result is `{"status": "accepted" | "duplicate" |
        "replaced"}` or an error body. Raises NotReady when the store cannot be reached; then no item was stored.
        """
        checked = [self._checked(item, labels) for item in batch]
        valid = [self._new_feedback(item, sender) for item in checked if isinstance(item, Feedback)]
        receipts = iter(await self._store(valid) if valid else [])
        return [self._result(item, next(receipts)) if isinstance(item, Feedback) else item.body() for item in checked]

    async def accept_one(self, item: Feedback, labels: Sequence[str], sender: UserName | None = None) -> dict[str, Any]:
        """Store one correction and return its result. Raises NotFound, Gone or InvalidRequest when it is refused."""
        if (error := self._validation_error(item, labels)) is not None:
            raise error
        (receipt,) = await self._store([self._new_feedback(item, sender)])
        if (refusal := self._refusal(item, receipt)) is not None:
            raise refusal
        return {"status": receipt.outcome}

    async def counts(self) -> dict[str, Any]:
        """Number of corrections per state, and the age in seconds of the oldest that waits for a retraining."""
        name = self._task.name
        counts, oldest = await self._prediction_logger.query(
            lambda store: (store.feedback.counts(name), store.feedback.oldest_waiting(name))
        )
        waited = None if oldest is None else round((now() - oldest).total_seconds(), 1)
        return {"model_name": name, "states": counts, "oldest_waiting_s": waited}

    async def _store(self, items: Sequence[NewFeedback]) -> list[Receipt]:
        receipts = await self._prediction_logger.feedback(items)
        # The prediction may still be in another replica's buffer when its correction arrives: retry once.
        retried = [i for i, r in enumerate(receipts) if r.outcome == "unknown_id" and _maybe_unwritten(items[i])]
        if retried:
            await asyncio.sleep(1.2 * FLUSH_S)
            for i, receipt in zip(
                retried, await self._prediction_logger.feedback([items[i] for i in retried]), strict=True
            ):
                receipts[i] = receipt
        return receipts

    def _new_feedback(self, item: Feedback, sender: UserName | None) -> NewFeedback:
        named = None if item.user is None else require_user(item.user)
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
            value=item.value,
            user=self._prediction_logger.hash_user(named or sender),
            subject=self._prediction_logger.hash_user(sender) if named and named != sender else None,
        )

    def _checked(self, item: Feedback | RequestError, labels: Sequence[str]) -> Feedback | RequestError:
        if isinstance(item, RequestError):
            return item
        return self._validation_error(item, labels) or item

    def _validation_error(self, item: Feedback, labels: Sequence[str]) -> RequestError | None:
        # Source and label are stored unredacted: with placeholders, distinct labels or sources would become one.
        if _is_personal(item.source):
            return InvalidRequest(
                "source: this holds personal data; name a channel here, and give the person as 'user'"
            )
        if item.label is not None and item.label not in labels and _is_personal(item.label):
            return InvalidRequest("label: this holds personal data")
        error = self._task.correction_error(item, labels, new_labels=self._new_labels)
        return None if error is None else InvalidRequest(error)

    def _result(self, item: Feedback, receipt: Receipt) -> dict[str, Any]:
        refusal = self._refusal(item, receipt)
        return {"status": receipt.outcome} if refusal is None else refusal.body()

    def _refusal(self, item: Feedback, receipt: Receipt) -> RequestError | None:
        if receipt.outcome == "unknown_id":
            return NotFound(f"there is no prediction {item.id!r} of {self._task.name}{self._text_instead}")
        if receipt.outcome == "stale_id":
            deleted = f"prediction {item.id!r} is older than {self._keep_days:g} days and was deleted"
            return Gone(deleted + self._text_instead)
        if receipt.outcome == "erased":
            return Gone("the data of this user was erased a moment ago; a correction counts again in some minutes")
        if receipt.outcome == "needs_index":
            return InvalidRequest(f"{self._task.part_field}: which of the prediction's {self._task.part_name}?")
        return None


@lru_cache(4096)  # few distinct names, each in many corrections
def _is_personal(name: str) -> bool:
    return redact(name) != name


def _maybe_unwritten(item: NewFeedback) -> bool:
    made = made_at(item.prediction_id or "")
    return made is not None and (now() - made).total_seconds() < _MAYBE_UNWRITTEN_S
