"""Queries for feedback that is waiting, and the conversion of rows to samples."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, or_, select

from models.feedback.store.schema import feedback, predictions
from models.feedback.types import Sample

_c = feedback.c
MAX_LEASE = timedelta(days=1)  # many times what anybody leases or locks anything for
# Only items need their request; a text was copied into the row by the join.
_with_request = feedback.outerjoin(
    predictions,
    and_(_c.item_id.is_not(None), predictions.c.task == _c.task, predictions.c.id == _c.prediction_id),
)


def is_over(until: ColumnElement[datetime], now: datetime) -> ColumnElement[bool]:
    """Whether a lease or lock until then is over: it has expired, or the clock was ahead when it was taken."""
    return or_(until < now, until > now + MAX_LEASE)


def has_expired(now: datetime) -> ColumnElement[bool]:
    """Leased rows of a run that was killed: nothing returns them to the queue, so queries treat them as waiting."""
    return and_(_c.state == "leased", is_over(_c.leased_until, now))


def is_waiting(now: datetime) -> ColumnElement[bool]:
    return or_(_c.state == "waiting", has_expired(now))


def samples_where(*conditions: Any) -> Select[Any]:
    """The rows that `to_sample` reads."""
    return (
        select(
            _c.id, _c.task, _c.text, _c.label, _c.source, _c.at, _c.user, _c.prediction_id, _c.version, _c.predicted,
            _c.attempts, _c.item_id, _c.event, _c.value, _c.reason, predictions.c.input, predictions.c.output,
        )
        .select_from(_with_request)
        .where(*conditions)
    )  # fmt: skip


def to_sample(row: Row[Any]) -> Sample:
    """The row as retraining reads it; for a row without label, the event is the label."""
    label = row.label if row.label is not None else row.event or ""
    extra: dict[str, Any] = {}
    if row.item_id is not None:
        extra = {
            "item_id": row.item_id, "event": row.event, "value": row.value, "input": row.input, "output": row.output,
        }  # fmt: skip
    return Sample(
        row.id, row.task, row.text or "", label, row.source, row.at, row.user, row.prediction_id, row.version,
        row.predicted, row.attempts, extra,
    )  # fmt: skip
