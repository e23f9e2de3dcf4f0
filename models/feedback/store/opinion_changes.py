"""Which counts of opinion monitoring are still to be evaluated: noted in the transaction that changes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, case, delete, func, select, update

from models.feedback.store.database import Database, chunks
from models.feedback.store.schema import opinion_changes, opinion_counts

_c, _counts = opinion_changes.c, opinion_counts.c
_STEP_S = 900


class Change(NamedTuple):
    """A topic whose counts were changed since they were evaluated."""

    topic: str
    since: int
    """seconds since 1970: the earliest quarter of an hour that was changed"""
    serial: int
    """of a document of the batch that changed them last: another batch has another"""


class StoryCounts(NamedTuple):
    topic: str
    unit: int
    texts: int
    stories: int
    negative: int
    """stories, too"""


class OpinionChanges:
    """Part of a `Store`: what has to be evaluated, and the counts for it."""

    def __init__(self, database: Database):
        self._database = database
        inserted = database.insert(opinion_changes)
        earlier = inserted.excluded.since < _c.since
        self._add = inserted.on_conflict_do_update(
            index_elements=["task", "topic"],
            set_={
                "since": case((earlier, inserted.excluded.since), else_=_c.since),
                "serial": inserted.excluded.serial,
            },
        )

    def add_within(self, connection: Connection, task: str, since: Mapping[str, int], serial: int) -> None:
        """Note by topic the earliest time whose counts the transaction changes."""
        rows = [{"task": task, "topic": topic, "since": at, "serial": serial} for topic, at in sorted(since.items())]
        if rows:
            connection.execute(self._add, rows)

    def pending(self, task: str, before: int) -> list[Change]:
        """What changed and was not settled, of changes before `before` (seconds since 1970); the earliest first."""
        query = select(_c.topic, _c.since, _c.serial).where(_c.task == task, _c.since < before).order_by(_c.since)
        with self._database.read() as connection:
            return [Change(*row) for row in connection.execute(query)]

    def settle(self, task: str, changes: Sequence[Change], again: Mapping[str, int]) -> None:
        """Forget changes that were evaluated; a topic that was changed meanwhile stays.

        `again` has topics that will be evaluated from a later time on.
        """

        def do(connection: Connection) -> None:
            for change in sorted(changes):  # in the order of `add_within`, against deadlocks
                same = (_c.task == task) & (_c.topic == change.topic) & (_c.serial == change.serial)
                if (since := again.get(change.topic)) is None:
                    connection.execute(delete(opinion_changes).where(same))
                else:
                    connection.execute(update(opinion_changes).where(same).values(since=since))

        self._database.write(do)

    def story_counts(
        self, task: str, topics: Sequence[str], start: int, end: int, unit_s: int
    ) -> Iterator[StoryCounts]:
        """Texts and stories of topics from `start` to `end`, by units of `unit_s` (quarters of an hour) from `start`.

        Units without documents are left out.
        """
        unit = ((_counts.start - start) // unit_s).label("unit")
        sums = [func.sum(_counts[name]) for name in ("texts", "stories", "story_negative")]
        with self._database.read() as connection:
            for some in chunks(topics):
                query = (
                    select(_counts.topic, unit, *sums)
                    .where(
                        _counts.task == task, _counts.topic.in_(some), _counts.step_s == _STEP_S,
                        _counts.start >= start, _counts.start < end,
                    )
                    .group_by(_counts.topic, unit)
                )  # fmt: skip
                for topic, *numbers in connection.execute(query):
                    yield StoryCounts(topic, *map(int, numbers))
