"""Alerts of opinion monitoring, which are also the webhook's outbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, Update, case, or_, select, update

from models.feedback.store.database import Database
from models.feedback.store.schema import opinion_alerts

_c = opinion_alerts.c
_ENDED = case((_c.ended.is_(None), 1), else_=2)
_SENT, _SKIPPED = 2, 3


@dataclass(frozen=True, slots=True)
class Alert:
    """A stretch of time in which a topic was unusual. Observed and expected are of all its steps."""

    id: int
    task: str
    topic: str
    kind: str
    started: datetime
    ended: datetime | None
    observed: float
    expected: float
    score: float
    examples: list[str]
    notified: int
    """0: not sent; 1: its start was sent; 2: its end was sent too; 3: nothing was sent, and it is long over"""

    @property
    def end_was_sent(self) -> bool:
        return self.notified == _SENT


class OpinionAlerts:
    """Part of a `Store`: alerts by topic."""

    def __init__(self, database: Database):
        self._database = database

    def open_alert(
        self, task: str, topic: str, kind: str, started: datetime, observed: float, expected: float, score: float,
        examples: Sequence[str],
    ) -> int | None:  # fmt: skip
        """Store an alert that begins; its id, or None if it is stored already, as by another controller."""
        statement = (
            self._database.insert(opinion_alerts)
            .values(
                task=task, topic=topic, kind=kind, started=started, observed=observed, expected=expected, score=score,
                examples=list(examples), notified=0,
            )
            .on_conflict_do_nothing()
            .returning(_c.id)
        )  # fmt: skip
        return self._database.write(lambda connection: connection.execute(statement).scalar())

    def revise(
        self, id_: int, ended: datetime | None, observed: float, expected: float, score: float, examples: Sequence[str]
    ) -> bool:  # fmt: skip
        """Set what an alert has observed by now, and whether it has ended; False if its end was sent already."""
        statement = (
            update(opinion_alerts)
            .where(_c.id == id_, _c.notified != _SENT)
            .values(
                ended=ended, observed=observed, expected=expected, score=score, examples=list(examples),
                notified=case((_c.notified == _SKIPPED, 0), else_=_c.notified),
            )
        )  # fmt: skip
        return self._changes_one(statement)

    def close_alert(self, id_: int, ended: datetime) -> bool:
        """End an alert; False if it has ended already."""
        return self._changes_one(update(opinion_alerts).where(_c.id == id_, _c.ended.is_(None)).values(ended=ended))

    def skip(self, id_: int) -> bool:
        """Send nothing of an alert of which nothing was sent yet; False if something was."""
        return self._changes_one(update(opinion_alerts).where(_c.id == id_, _c.notified == 0).values(notified=_SKIPPED))

    def _changes_one(self, statement: Update) -> bool:
        return self._database.write(lambda connection: connection.execute(statement).rowcount > 0)

    def alerts(
        self, task: str, topic: str | None = None, since: datetime | None = None, active: bool | None = None,
        limit: int = 1000,
    ) -> list[Alert]:  # fmt: skip
        """The newest alerts, newest first: of one topic, not ended before `since`, (not) active."""
        query = select(opinion_alerts).where(_c.task == task)
        if topic is not None:
            query = query.where(_c.topic == topic)
        if since is not None:
            query = query.where(or_(_c.ended.is_(None), _c.ended >= since))
        if active is not None:
            query = query.where(_c.ended.is_(None) if active else _c.ended.is_not(None))
        return self._read(query.order_by(_c.started.desc(), _c.id.desc()).limit(limit))

    def pending(self, task: str, limit: int = 100) -> list[Alert]:
        """Alerts whose start or end was not sent yet, oldest first."""
        return self._read(
            select(opinion_alerts).where(_c.task == task, _c.notified < _ENDED).order_by(_c.id).limit(limit)
        )

    def mark(self, id_: int, notified: int) -> None:
        """Record what was sent of an alert: 1 its start, 2 its end too. Never back."""
        statement = update(opinion_alerts).where(_c.id == id_, _c.notified < notified).values(notified=notified)
        self._database.write(lambda connection: connection.execute(statement))

    def _read(self, query: Select[Any]) -> list[Alert]:
        with self._database.read() as connection:
            return [_to_alert(row) for row in connection.execute(query)]


def _to_alert(row: Row[Any]) -> Alert:
    return Alert(**row._mapping)
