"""What the stored feedback says: how much of it there is, how well versions do, and samples to look at or replay."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, or_, select

from models.feedback.store.database import Database
from models.feedback.store.schema import feedback, predictions, trained
from models.feedback.types import Sample, State

_c = feedback.c
# Only items need the request they belong to; a text was copied when it was joined.
_with_request = feedback.outerjoin(
    predictions,
    and_(_c.item_id.is_not(None), predictions.c.task == _c.task, predictions.c.id == _c.prediction_id),
)


class Reading(Database):
    def counts(self, task: str) -> dict[State, int]:
        """How many rows of the task are in each state, zeros included; those whose lease has expired are waiting."""
        query = select(_c.state, func.count()).where(_c.task == task).group_by(_c.state)
        # Apart from it: the index alone answers the first, which is asked every other second.
        expired = select(func.count()).where(_c.task == task, has_expired(self.clock()))
        with self.read() as connection:
            found: dict[State, int] = {row[0]: row[1] for row in connection.execute(query)}
            again = connection.execute(expired).scalar_one() if "leased" in found else 0
        counts = {state: found.get(state, 0) for state in get_args(State)}
        return counts | {"waiting": counts["waiting"] + again, "leased": counts["leased"] - again}

    def oldest_waiting(self, task: str) -> datetime | None:
        """When the feedback that waits longest arrived."""
        query = select(func.min(_c.at)).where(_c.task == task, is_waiting(self.clock()))
        with self.read() as connection:
            oldest: datetime | None = connection.execute(query).scalar_one()
        return oldest

    def live_accuracy(self, task: str, since: datetime) -> dict[str, tuple[int, int]]:
        """By version: how many labels that users gave are those it had predicted, and how many they gave.

        Feedback that arrived at `since` or later and names its prediction; without consent too, but nothing that
        curation suspects to be wrong.
        """
        query = (
            select(_c.version, func.sum(case((_c.predicted == _c.label, 1), else_=0)), func.count())
            .where(
                _c.task == task, _c.at >= since, _c.version.is_not(None), _c.predicted.is_not(None),
                _c.label.is_not(None), _c.state != "quarantined",
            )
            .group_by(_c.version)
        )  # fmt: skip
        with self.read() as connection:
            return {version: (int(right), total) for version, right, total in connection.execute(query)}

    def used(self, task: str, versions: Collection[str] | None = None, limit: int | None = None) -> list[Sample]:
        """Samples that were learned from before, where `versions` are given by one of those; newest first."""
        query = samples_where(_c.task == task, _c.state == "used")
        if versions is not None:
            query = query.where(_c.id.in_(select(trained.c.feedback_id).where(trained.c.version.in_(versions))))
        return self._samples(query.limit(limit))

    def newest(self, task: str, n: int) -> list[Sample]:
        """The newest `n` samples that were or may be learned from, newest first."""
        return self._samples(samples_where(_c.task == task, _c.state.in_(("waiting", "leased", "used"))).limit(n))

    def _samples(self, query: Select[Any]) -> list[Sample]:
        with self.read() as connection:
            return [to_sample(row) for row in connection.execute(query.order_by(_c.at.desc(), _c.id.desc()))]


def has_expired(now: datetime) -> ColumnElement[bool]:
    """Rows of a run that was killed: nobody gives them back, so whoever reads takes them for waiting."""
    return and_(_c.state == "leased", _c.leased_until < now)


def is_waiting(now: datetime) -> ColumnElement[bool]:
    return or_(_c.state == "waiting", has_expired(now))


def samples_where(*conditions: Any) -> Select[Any]:
    """The rows that `to_sample` reads."""
    return (
        select(
            _c.id, _c.task, _c.text, _c.label, _c.source, _c.at, _c.user, _c.prediction_id, _c.version, _c.predicted,
            _c.attempts, _c.item_id, _c.event, _c.reason, predictions.c.input, predictions.c.output,
        )
        .select_from(_with_request)
        .where(*conditions)
    )  # fmt: skip


def to_sample(row: Row[Any]) -> Sample:
    """The row as retraining reads it; where it has no label, what the user did with the item stands for one."""
    label = row.label if row.label is not None else row.event or ""
    extra: dict[str, Any] = {}
    if row.item_id is not None:
        extra = {"item_id": row.item_id, "event": row.event, "input": row.input, "output": row.output}
    return Sample(
        row.id, row.task, row.text or "", label, row.source, row.at, row.user, row.prediction_id, row.version,
        row.predicted, row.attempts, extra,
    )  # fmt: skip
