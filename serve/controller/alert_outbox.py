"""The alerts in the store as the webhook's outbox."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from models.feedback.store import Store
from models.feedback.store import opinion_alerts as stored
from serve.config import OpinionConfig
from serve.controller.webhook import Alert, State

_NOTIFIED: dict[State, int] = {"firing": 1, "resolved": 2}


class AlertOutbox:
    """The states of one task's alerts that were not sent yet."""

    def __init__(self, config: OpinionConfig, store: Store):
        self._task, self._store = config.task, store
        self._within = timedelta(hours=config.notify_within_h)

    def pending(self) -> list[Alert]:
        """Oldest first. Of alerts that were over long ago nothing: with a first webhook, those of months would be sent.

        While the newest document is old, as when history is loaded, no beginnings: when its time is now, those are left
        that are not over.
        """
        oldest = self._store.database.clock() - self._within
        alerts = [alert for alert in self._store.opinion_alerts.pending(self._task) if not self._skipped(alert, oldest)]
        if any(not alert.notified for alert in alerts):
            newest = self._store.opinion.newest(self._task)
            if newest is None or newest < oldest:
                alerts = [alert for alert in alerts if alert.notified]
        return [state for alert in alerts for state in _states(alert)]

    def _skipped(self, alert: stored.Alert, oldest: datetime) -> bool:
        is_over = not alert.notified and alert.ended is not None and alert.ended < oldest
        return is_over and self._store.opinion_alerts.skip(alert.id)

    def mark(self, alert_id: str, state: State) -> None:
        self._store.opinion_alerts.mark(int(alert_id), _NOTIFIED[state])


def _states(alert: stored.Alert) -> Iterator[Alert]:
    if not alert.notified:
        yield _alert(alert, "firing")
    if alert.ended is not None:
        yield _alert(alert, "resolved")


def _alert(alert: stored.Alert, state: State) -> Alert:
    return Alert(
        id=str(alert.id), state=state, task=alert.task, topic=alert.topic, kind=alert.kind, started=alert.started,
        ended=alert.ended, observed=round(alert.observed), expected=alert.expected, score=alert.score,
        examples=tuple(alert.examples),
    )  # fmt: skip
