"""Finds surges of negative stories in the counts, and keeps the alerts in the store as they are found.

What has to be evaluated stands in the store (`opinion.changes`), noted by who counts, and is forgotten after its alerts
are stored: a kill between the two repeats an evaluation, which finds the alerts that are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from models.feedback.store import Store
from models.feedback.store.opinion import ALL
from models.feedback.store.opinion_alerts import Alert
from models.feedback.store.opinion_changes import Change
from models.opinion.surges import WINDOWS, Flags, Surge, SurgeRules, expected_counts, find_surges, known_steps
from models.opinion.trends import parse_step
from serve.config import OpinionConfig
from serve.metrics import OpinionMetrics

KIND = "negative_surge"
_DAY_S = 86_400
_SECONDS = 1.0  # of one step; other reconcilers share the loop
_CELLS = 100_000  # topics times steps that are evaluated together: a fit of them takes some 10 MB
_NEWEST_STEPS = 8  # are always tested, as `find_surges` asks
_WINDOW_STEPS = max(WINDOWS)
_EXAMPLES = 5
_ANY = 1_000_000  # alerts
_Counts = NDArray[np.int32]


class SurgeReconciler:
    """Evaluates one task's topics whose counts have changed, and keeps their alerts. `changed`: some alert is another.

    Time is that of the documents: the newest step is the one of the newest `published`, never beyond now.
    """

    def __init__(
        self,
        config: OpinionConfig,
        store: Store,
        metrics: OpinionMetrics | None = None,
        changed: Callable[[], None] = lambda: None,
    ):
        self._task, self._store, self._metrics, self._changed = config.task, store, metrics, changed
        self._notify_within = timedelta(hours=config.notify_within_h)
        self._keep_s = int(config.keep_days * _DAY_S)
        self._rules = SurgeRules(
            step_s=parse_step(config.surge.step).seconds,
            false_alarms_per_month=config.surge.false_alarms_per_month,
            min_stories=config.surge.min_stories,
        )
        self._weeks = _Weeks(store, config.task, self._rules)
        self._end = 0
        self._todo: set[str] = set()
        """topics without new counts that are evaluated because the newest step is another"""

    def step(self) -> None:
        """Evaluate what has changed, for about a second. Raises StoreError; the next step goes on."""
        newest = self._store.opinion.newest(self._task)
        if newest is None:
            return
        step_s, stops = self._rules.step_s, time.monotonic() + _SECONDS
        end = int(newest.timestamp()) // step_s * step_s + step_s
        if end != self._end:
            self._weeks.move_to(end)
            self._todo |= self._watched()
            self._end = end
        pending = {change.topic: change for change in self._store.opinion.changes.pending(self._task, end)}
        if not pending and not self._todo:
            return
        for topic, change in pending.items():
            self._weeks.forget(topic, change.since)
        if self._evaluate_all(pending, end, stops) and ALL in pending:
            self._settle([pending[ALL]], {})
        if self._metrics is not None:
            self._metrics.active({alert.topic for alert in self._alerts(active=True)})

    def _evaluate_all(self, pending: Mapping[str, Change], end: int, stops: float) -> bool:
        """Evaluate what is pending, and `_todo`; whether there was time for it.

        The newest weeks come first, which takes little time, then topics that changed before them, those that wait
        longest first, so that one that gets old documents all the time does not hold up others.
        """
        recently, oldest = self._weeks.first_tested, end - self._keep_s
        changes = [change for topic, change in pending.items() if topic != ALL]
        newest = [(change.since, change.topic) for change in changes if change.since >= recently]
        newest += [(end, topic) for topic in self._todo - pending.keys()]
        older = sorted((change for change in changes if change.since < recently), key=lambda change: change.serial)
        parts = [*self._portions(sorted(newest), end)]
        parts += self._portions([(max(change.since, oldest), change.topic) for change in older], end)
        for some in parts:
            if time.monotonic() > stops:
                return False
            later, topics = self._evaluate(some, end), [topic for _, topic in some]
            self._settle([pending[topic] for topic in topics if topic in pending], later)
            self._todo.difference_update(topics)
        return True

    def _watched(self) -> set[str]:
        """Topics to evaluate in each new step, whether they have counts in it or not."""
        series = set(self._metrics.topics) if self._metrics is not None else set()
        return series | {alert.topic for alert in self._alerts(active=True)}

    def _alerts(self, since: int | None = None, active: bool | None = None) -> list[Alert]:
        moment = None if since is None else _moment(since)
        found = self._store.opinion_alerts.alerts(self._task, since=moment, active=active, limit=_ANY)
        return [alert for alert in found if alert.kind == KIND]

    def _settle(self, changes: Sequence[Change], later: Mapping[str, int]) -> None:
        if changes:
            self._store.opinion.changes.settle(self._task, changes, later)

    def _portions(self, work: Sequence[tuple[int, str]], end: int) -> Iterator[list[tuple[int, str]]]:
        """Cut times and topics into parts whose steps fit into memory together."""
        some, earliest = list[tuple[int, str]](), end
        for since, topic in work:
            earliest = min(earliest, since)
            steps = (end - earliest) // self._rules.step_s + 7 * self._rules.weeks * self._rules.steps_per_day
            if some and (len(some) + 1) * steps > _CELLS:
                yield some
                some, earliest = [], since
            some.append((since, topic))
        if some:
            yield some

    def _evaluate(self, work: Sequence[tuple[int, str]], end: int) -> dict[str, int]:
        """Find surges of topics from some time on. By topic: from when on it is to be evaluated again.

        That is a step with documents of the future, or the next step while the last windows have stories: their sum may
        make a surge in a step that has none.
        """
        rules, topics = self._rules, [topic for _, topic in work]
        since = min(end - _NEWEST_STEPS * rules.step_s, *(since - since % rules.step_s for since, _ in work))
        since, alerts = self._with_alerts(topics, since)
        start = max(0, since - since % _DAY_S - 7 * rules.weeks * _DAY_S)
        counts, later = self._weeks.read(topics, start)
        total, _ = self._weeks.read([ALL], start)
        known = known_steps(total[0, 0], start, rules)
        first = max(0, since - start) // rules.step_s
        surges = find_surges(counts[1], counts[2], start, rules, known=known, since=first, running=True)
        changes = False
        for row, topic in enumerate(topics):
            found = [surge for surge in surges if surge.topic == row]
            changes |= self._keep(topic, found, [alert for alert in alerts if alert.topic == topic], end)
        if changes:
            self._changed()
        self._show(topics, counts, start, known)
        lately: list[bool] = counts[1, :, -_WINDOW_STEPS:].any(axis=1).tolist()  # type: ignore[assignment]
        return later | {topic: end for topic, has_stories in zip(topics, lately, strict=True) if has_stories}

    def _with_alerts(self, topics: Sequence[str], since: int) -> tuple[int, list[Alert]]:
        """The alerts that touch the steps from `since` on; and `since`, moved back so that they are whole.

        Otherwise a window that reaches back into an alert that has ended would begin another one.
        """
        while True:
            reached = since - _WINDOW_STEPS * self._rules.step_s
            alerts = [alert for alert in self._alerts(since=reached) if alert.topic in topics]
            earliest = min([since, *(_second(alert.started) for alert in alerts)])
            if earliest == since:
                return since, alerts
            since = earliest - earliest % self._rules.step_s

    def _keep(self, topic: str, surges: Sequence[Surge], alerts: Sequence[Alert], end: int) -> bool:
        """Make the alerts of a topic those that were found: whether any is another now.

        A surge is the newest stored alert that it overlaps. What is stored is never deleted, and what a receiver was
        told to be over stays so: a surge that goes on after that is a new alert.
        """
        rest = sorted(alerts, key=lambda alert: alert.started)
        changes = False
        for surge in surges:
            same = [alert for alert in rest if _overlaps(alert, surge)]
            if not same:
                changes |= self._open(topic, surge, surge.started, end)
                continue
            rest = [alert for alert in rest if alert not in same]
            if not same[-1].end_was_sent:
                changes |= self._revise(same[-1], surge, end)
            elif surge.ended is None and same[-1].ended is not None:
                changes |= self._open(topic, surge, _second(same[-1].ended), end)
        for alert in rest:
            if alert.ended is None:  # late documents have taken the surge away
                ended = min(end, _second(alert.started) + self._rules.step_s)
                changes |= self._store.opinion_alerts.close_alert(alert.id, _moment(ended))
                self._skip_if_old(alert.id, ended)
        return changes

    def _open(self, topic: str, surge: Surge, started: int, end: int) -> bool:
        found = self._store.opinion_alerts.open_alert(
            self._task, topic, KIND, _moment(started), surge.observed, surge.expected, surge.score,
            self._examples(topic, surge, end),
        )  # fmt: skip
        if found is not None and surge.ended is not None:
            self._store.opinion_alerts.close_alert(found, _moment(surge.ended))
            self._skip_if_old(found, surge.ended)
        return found is not None

    def _revise(self, alert: Alert, surge: Surge, end: int) -> bool:
        ended = None if surge.ended is None else _moment(surge.ended)
        if (alert.ended, alert.observed) == (ended, surge.observed) and abs(alert.expected - surge.expected) < 0.01:
            return False
        examples: Sequence[str] = alert.examples
        if len(examples) < _EXAMPLES:
            examples = self._examples(alert.topic, surge, end)
        changed = self._store.opinion_alerts.revise(
            alert.id, ended, surge.observed, surge.expected, surge.score, examples
        )
        if surge.ended is not None:
            self._skip_if_old(alert.id, surge.ended)
        return changed

    def _skip_if_old(self, id_: int, ended: int) -> None:
        """Send nothing of a surge that was over long ago when it was found: history that was loaded."""
        if _moment(ended) < self._store.database.clock() - self._notify_within:
            self._store.opinion_alerts.skip(id_)

    def _examples(self, topic: str, surge: Surge, end: int) -> list[str]:
        until = end if surge.ended is None else surge.ended
        return self._store.opinion.examples(
            self._task, topic, "negative", _moment(surge.started), _moment(until), _EXAMPLES
        )

    def _show(self, topics: Sequence[str], counts: _Counts, start: int, known: Flags) -> None:
        """Set the metrics of the newest step."""
        if self._metrics is None:
            return
        rows = [row for row, topic in enumerate(topics) if topic in self._metrics.topics]
        last = counts.shape[2] - 1
        known = np.broadcast_to(known, (len(rows), last + 1))
        if rows:
            expected = expected_counts(counts[1, rows], counts[2, rows], start, self._rules, known=known, since=last)
            for at, row in enumerate(rows):
                self._metrics.negative(topics[row], int(counts[2, row, last]), float(expected.negative[at, -1]))


@dataclass(slots=True)
class _Kept:
    counts: _Counts
    """(texts, stories, negative stories; steps), from the kept weeks' start to their end"""
    until: int
    """seconds since 1970: before it, `counts` are those of the store"""


class _Weeks:
    """Counts by step up to the newest one. Those of the last weeks are read once a day, then from where they change."""

    _CELLS = 2_000_000  # topics times steps that are kept: 24 MB, 1,200 topics by the hour
    _RECENT_S = 14 * _DAY_S  # is tested: eight steps of a day, and an alert before them
    _FUTURE_S = 2 * _DAY_S  # `published` may be a day ahead

    def __init__(self, store: Store, task: str, rules: SurgeRules):
        self._store, self._task, self._rules = store, task, rules
        self._kept: dict[str, _Kept] = {}
        self._start = self._end = 0

    @property
    def first_tested(self) -> int:
        """The first time whose baseline is among the kept weeks."""
        return self._start + 7 * self._rules.weeks * _DAY_S

    def move_to(self, end: int) -> None:
        """The newest step ends at `end`, in seconds since 1970."""
        start = max(0, (end - 1) // _DAY_S * _DAY_S - 7 * self._rules.weeks * _DAY_S - self._RECENT_S)
        if start != self._start or end < self._end:
            self._kept.clear()  # each day: another server on this store may have counted, too
        self._start, self._end = start, end

    def forget(self, topic: str, since: int) -> None:
        """A topic's counts have changed from `since` on, and are read again from there."""
        if topic in self._kept:
            self._kept[topic].until = min(self._kept[topic].until, since)

    def read(self, topics: Sequence[str], start: int) -> tuple[_Counts, dict[str, int]]:
        """(texts, stories, negative stories; topics; steps) from `start` on.

        And by topic the start of the first step after the newest one that has documents; they are not among the counts.
        """
        if start < self._start:
            return self._read(topics, start)
        if len(self._kept) * (self._end - self._start) // self._rules.step_s > self._CELLS:
            self._kept.clear()
        later = self._refresh([topic for topic in topics if self._is_stale(topic)])
        skipped = (start - self._start) // self._rules.step_s
        return np.stack([self._kept[topic].counts[:, skipped:] for topic in topics], 1), later

    def _is_stale(self, topic: str) -> bool:
        return topic not in self._kept or self._kept[topic].until < self._end

    def _refresh(self, topics: Sequence[str]) -> dict[str, int]:
        step_s, later = self._rules.step_s, dict[str, int]()
        size = (self._end - self._start) // step_s
        old = {topic: self._kept[topic] for topic in topics if topic in self._kept}
        for some, since in (
            ([topic for topic in topics if topic not in old], self._start),
            ([*old], min((max(self._start, kept.until) for kept in old.values()), default=0)),
        ):
            if not some:
                continue
            since -= since % step_s
            fresh, after = self._read(some, since)
            later |= after
            before = (since - self._start) // step_s
            for row, topic in enumerate(some):
                counts = np.zeros((3, size), np.int32)
                if before:
                    counts[:, :before] = self._padded(old[topic].counts, before)
                counts[:, before:] = fresh[:, row]
                self._kept[topic] = _Kept(counts, self._end)
        return later

    @staticmethod
    def _padded(counts: _Counts, size: int) -> _Counts:
        padded = np.zeros((3, size), np.int32)
        padded[:, : counts.shape[1]] = counts[:, :size]
        return padded

    def _read(self, topics: Sequence[str], start: int) -> tuple[_Counts, dict[str, int]]:
        step_s = self._rules.step_s
        steps = (self._end - start) // step_s
        counts = np.zeros((3, len(topics), steps), np.int32)
        rows, later = {topic: row for row, topic in enumerate(topics)}, dict[str, int]()
        for found in self._store.opinion.changes.story_counts(
            self._task, topics, start, self._end + self._FUTURE_S, step_s
        ):
            if found.unit < steps:
                counts[:, rows[found.topic], found.unit] = found.texts, found.stories, found.negative
            else:
                at = start + found.unit * step_s
                later[found.topic] = min(at, later.get(found.topic, at))
        return counts, later


def _overlaps(alert: Alert, surge: Surge) -> bool:
    begins_in_time = surge.ended is None or _second(alert.started) < surge.ended
    return begins_in_time and (alert.ended is None or surge.started < _second(alert.ended))


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _second(moment: datetime) -> int:
    return int(moment.timestamp())
