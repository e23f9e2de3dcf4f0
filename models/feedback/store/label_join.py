"""Join feedback with its prediction, and the key by which duplicates are found."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from models.feedback.types import FeedbackOutcome, NewFeedback
from models.text import same_text_key

_OWN_ID = re.compile("[0-9a-f]{12}0[0-9a-f]{19}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Logged(NamedTuple):
    """The fields of a logged prediction that the join needs."""

    version: str
    input: Any
    output: Any
    user: str | None
    """whose data it is"""


@dataclass(frozen=True, slots=True)
class Joined:
    """What a piece of feedback gets from its prediction. `subject` is the user whose text it is."""

    text: str
    index: int | None = None
    version: str | None = None
    predicted: str | None = None
    subject: str | None = None


def join(item: NewFeedback, prediction: Logged | None, oldest: datetime) -> Joined | FeedbackOutcome:
    """Join the feedback with the text of `prediction`, or with its own; or the outcome with which it is rejected.

    Predictions older than `oldest` have been deleted: their ids are `stale_id`, other missing ids `unknown_id`.
    """
    if item.prediction_id is None:
        return Joined(item.text or "")
    if prediction is None:
        made = made_at(item.prediction_id)
        return "stale_id" if made is not None and made < oldest else "unknown_id"
    if isinstance(prediction.input, list):
        return _text_of(item, prediction)
    return _item_of(item, prediction)


def made_at(prediction_id: str) -> datetime | None:
    """When this id was made: its first 12 hexadecimal digits are milliseconds since the epoch.

    None for an id of another form (serve/engine/ids.py), such as a UUIDv7, which also begins with its time.
    """
    if not _OWN_ID.fullmatch(prediction_id):
        return None
    try:
        milliseconds = int.from_bytes(_time_of(prediction_id), "big")
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except (ValueError, OverflowError):
        return None


def key_of(item: NewFeedback, joined: Joined) -> bytes:
    """The unique key of a piece of feedback: two with the same key are duplicates. A sha256.

    The prediction's time is its prefix, so that recent feedback is adjacent in the index, and a batch of a hundred
    changes a few index pages instead of a hundred.
    """
    parts: tuple[str | int | None, ...]
    time = b""
    if item.prediction_id is not None:
        parts = ("id", item.task, item.prediction_id, joined.index, item.item_id, item.event, item.source)
        with suppress(ValueError):
            time = _time_of(item.prediction_id)
    else:
        parts = (
            "text",
            item.task,
            same_text_key(joined.text),
            item.label,
            item.source,
            item.user,
            item.item_id,
            item.event,
            *([item.subject] if item.subject is not None else []),  # so that the erasure of either leaves the other's
        )
    return time + hashlib.sha256(ascii(parts).encode()).digest()


def key_of_text(task: str, prediction_id: str, index: int, source: str) -> bytes:
    """The key of a label that `source` gave to one text of a prediction."""
    item = NewFeedback(task, source, consent=True, at=_EPOCH, prediction_id=prediction_id)
    return key_of(item, Joined("", index))


def _time_of(prediction_id: str) -> bytes:
    time = bytes.fromhex(prediction_id.replace("-", "")[:12])
    if len(time) != 6:
        raise ValueError("shorter than a time")
    return time


def _text_of(item: NewFeedback, prediction: Logged) -> Joined | FeedbackOutcome:
    texts: list[str] = prediction.input
    index = 0 if item.index is None and len(texts) == 1 else item.index
    if index is None or not 0 <= index < len(texts):
        return "needs_index"
    answers = prediction.output
    answer = answers[index] if isinstance(answers, list) and index < len(answers) else None
    predicted = answer.get("label") if isinstance(answer, dict) else None
    return Joined(texts[index], index, prediction.version, predicted, prediction.user)


def _item_of(item: NewFeedback, prediction: Logged) -> Joined | FeedbackOutcome:
    candidates = prediction.input.get("candidates", []) if isinstance(prediction.input, dict) else []
    for candidate in candidates:
        if item.item_id is not None and candidate.get("id") == item.item_id:
            return Joined(candidate["text"], None, prediction.version, None, prediction.user)
    return "needs_index"
