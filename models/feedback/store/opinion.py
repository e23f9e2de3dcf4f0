"""Documents of opinion monitoring: received with the predictions, then counted once by the controller."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, func, insert, select, text, tuple_

from models.feedback.store.database import Database, chunks
from models.feedback.store.erasure import erased_users, is_erased
from models.feedback.store.opinion_changes import OpinionChanges
from models.feedback.store.opinion_stories import Stories, Story
from models.feedback.store.schema import (
    clean,
    opinion_bands,
    opinion_counts,
    opinion_documents,
    opinion_inbox,
    opinion_stories,
)
from models.feedback.types import NewDocument
from models.opinion.stories import Sketch, sketches
from models.opinion.types import Counts, Document

ALL = ""
"""the topic under which all documents are counted"""
STEPS_S = (60, 900)
"""the lengths of the stretches of time that counts are kept for"""
COUNTS = tuple(field.name for field in fields(Counts))
"""the names of the counts, in the order of `sums`"""
_STORIES_KEPT = timedelta(days=30)  # by their own time, once nothing waits to be counted
_EXPIRED_AT_ONCE = 2000
_KEY_BYTES = 16
_COLUMN_OF_LABEL = {label: COUNTS.index(label) for label in ("positive", "neutral", "negative")}
_STORY_COLUMN_OF_LABEL = {
    label: COUNTS.index(f"story_{label}") for label in ("positive", "negative")
}  # the neutral ones are the rest
_STORIES = COUNTS.index("stories")
_in, _docs, _counts = opinion_inbox.c, opinion_documents.c, opinion_counts.c
_Deltas = defaultdict[tuple[str, int, int], list[int]]
_Condition = Callable[[Table], ColumnElement[bool]]


class Waiting(NamedTuple):
    """A document that is stored and not counted yet."""

    serial: int
    document: Document
    user: str | None


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What became of a batch."""

    counted: list[Document]
    duplicates: int
    """documents whose id was known already"""
    begun: list[tuple[frozenset[str], str]]
    """of the stories that are new in some topic: the topics, and the label of the first text there"""


class Opinion:
    """Part of a `Store`: documents, their stories, and counts by topic and time."""

    def __init__(self, database: Database):
        self._database = database
        self.changes = OpinionChanges(database)
        inserted = database.insert(opinion_counts)
        self._add_counts = inserted.on_conflict_do_update(
            index_elements=["task", "topic", "step_s", "start"],
            set_={name: opinion_counts.c[name] + inserted.excluded[name] for name in COUNTS},
        )

    def receive_within(self, connection: Connection, documents: Sequence[NewDocument]) -> None:
        """Store documents to be counted later, within a transaction that blocks erasures. Leaves out erased users'."""
        if not documents:
            return
        erased = erased_users(connection, (item.user for item in documents))
        rows = [_to_inbox(item) for item in documents if not is_erased(erased, item.user, item.document.at)]
        if rows:
            connection.execute(insert(opinion_inbox), rows)

    def next_batch(self, task: str, limit: int) -> list[Waiting]:
        """The oldest `limit` documents that wait to be counted. They stay until `absorb` counts them."""
        query = (
            select(_in.serial, _in.document, _in.at, _in.prediction_id, _in.user)
            .where(_in.task == task)
            .order_by(_in.serial)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [_from_inbox(row) for row in connection.execute(query)]

    def absorb(self, task: str, batch: Sequence[Waiting], window: timedelta) -> Absorbed:
        """Count documents of `next_batch` in one transaction: each once, whoever else counts the same batch.

        A document whose id is known is dropped. Copies of a text within `window` are one story, which is counted in
        each topic of its texts, at the time and with the label of the first text there.
        """
        if not batch:
            return Absorbed([], 0, [])
        sketched = dict(
            zip((item.serial for item in batch), sketches([item.document.text for item in batch]), strict=True)
        )
        return self._database.write(
            lambda connection: self._absorb(connection, task, batch, sketched, int(window.total_seconds()))
        )

    def _absorb(
        self, connection: Connection, task: str, batch: Sequence[Waiting], sketched: dict[int, Sketch], window_s: int
    ) -> Absorbed:
        self._database.absorb_alone(connection)
        self._database.block_erasure(connection)
        serials = [item.serial for item in batch]
        here = _those_in(connection, select(_in.serial), _in.serial, serials)
        present = [item for item in batch if item.serial in here]
        new = self._without_known(connection, task, present)
        new.sort(key=lambda item: (item.document.published, item.serial))
        stories = Stories(connection, task, window_s)
        stories.load((_second(item.document.published), sketched[item.serial].bands) for item in new)
        deltas: _Deltas = defaultdict(lambda: [0] * len(COUNTS))
        begun: list[tuple[frozenset[str], str]] = []
        rows = [self._count(task, item, sketched[item.serial], stories, deltas, begun) for item in new]
        if rows:
            connection.execute(insert(opinion_documents), rows)
        stories.save()
        self._save_counts(connection, task, deltas)
        if new:
            self._save_changes(connection, task, deltas, max(item.serial for item in new))
        for some in chunks([item.serial for item in present]):
            connection.execute(delete(opinion_inbox).where(_in.serial.in_(some)))
        return Absorbed([item.document for item in new], len(present) - len(new), begun)

    def _without_known(self, connection: Connection, task: str, items: Sequence[Waiting]) -> list[Waiting]:
        """The first of `items` with each id, without those whose id is counted already."""
        by_key: dict[bytes, Waiting] = {}
        for item in items:
            by_key.setdefault(_key(item.document.document_id), item)
        known = _those_in(connection, select(_docs.key).where(_docs.task == task), _docs.key, list(by_key))
        return [item for key, item in by_key.items() if key not in known]

    def _count(
        self, task: str, item: Waiting, sketch: Sketch, stories: Stories, deltas: _Deltas,
        begun: list[tuple[frozenset[str], str]],
    ) -> dict[str, Any]:  # fmt: skip
        """Add a document to the deltas, to its story, and to `begun` where the story is new; its row."""
        document, second = item.document, _second(item.document.published)
        story = stories.find(second, sketch) or stories.begin(item.serial, second, sketch)
        topics = dict.fromkeys((ALL, *map(clean, document.topics)))
        if without := frozenset(topics) - story.topics.keys() - {ALL}:
            begun.append((without, document.label))
        for topic in topics:
            _add(deltas, topic, second, (0, _COLUMN_OF_LABEL.get(document.label)), 1)
            _count_story(deltas, story, topic, second, document.label)
        stories.extend(story, second)
        return {
            "serial": item.serial, "task": task, "key": _key(document.document_id), "document_id": document.document_id,
            "story": story.id, "published": document.published, "label": document.label, "score": document.score,
            "topics": [topic for topic in topics if topic != ALL], "prediction_id": document.prediction_id,
            "at": document.at, "user": item.user,
        }  # fmt: skip

    def _save_counts(self, connection: Connection, task: str, deltas: _Deltas) -> None:
        rows = [
            {
                "task": task,
                "topic": topic,
                "step_s": step_s,
                "start": start,
                **dict(zip(COUNTS, delta, strict=True)),
            }
            for (topic, step_s, start), delta in sorted(deltas.items())
            if any(delta)
        ]
        if rows:
            connection.execute(self._add_counts, rows)

    def _save_changes(self, connection: Connection, task: str, deltas: _Deltas, serial: int) -> None:
        """Note from when on each topic's counts are others, for who evaluates them."""
        since: dict[str, int] = {}
        for (topic, step_s, start), delta in deltas.items():
            if step_s == STEPS_S[-1] and any(delta):
                since[topic] = min(start, since.get(topic, start))
        self.changes.add_within(connection, task, since, serial)

    def sums(self, task: str, topic: str, step_s: int, start: int, end: int, unit_s: int) -> list[tuple[int, ...]]:
        """The counts from `start` to `end` (seconds since 1970), summed over units of `unit_s` from `start` on.

        Each row is the unit's number, then the seven counts. Units without documents are left out. `step_s` is one of
        STEPS_S; a stretch belongs to the unit in which it begins.
        """
        unit = ((_counts.start - start) // unit_s).label("unit")
        query = (
            select(unit, *(func.sum(_counts[name]) for name in COUNTS))
            .where(
                _counts.task == task, _counts.topic == topic, _counts.step_s == step_s, _counts.start >= start,
                _counts.start < end,
            )
            .group_by(unit)
        )  # fmt: skip
        with self._database.read() as connection:
            return [tuple(map(int, row)) for row in connection.execute(query)]  # PostgreSQL sums to Decimal

    def topics(self, task: str) -> list[str]:
        """All topics that were counted, in the order of their names; without ALL."""
        with self._database.read() as connection:
            found = connection.execute(_TOPICS, {"task": task}).scalars().all()
        return [topic for topic in found if topic]

    def has_topic(self, task: str, topic: str) -> bool:
        query = select(_counts.start).where(_counts.task == task, _counts.topic == topic).limit(1)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None

    def counts_since(self, task: str, topics: Sequence[str], start: int) -> dict[str, Counts]:
        """By topic: the sum of its counts from `start` on, in seconds since 1970, to the quarter of an hour."""
        found: dict[str, Counts] = {}
        with self._database.read() as connection:
            for some in chunks(topics):
                query = (
                    select(_counts.topic, *(func.sum(_counts[name]) for name in COUNTS))
                    .where(
                        _counts.task == task, _counts.topic.in_(some), _counts.step_s == STEPS_S[-1],
                        _counts.start >= start,
                    )
                    .group_by(_counts.topic)
                )  # fmt: skip
                found |= {row[0]: Counts(*map(int, row[1:])) for row in connection.execute(query)}
        return found

    def newest(self, task: str) -> datetime | None:
        """The minute of the newest document by `published`, of those not in the future; None without documents."""
        query = select(func.max(_counts.start)).where(
            _counts.task == task, _counts.topic == ALL, _counts.step_s == STEPS_S[0],
            _counts.start <= _second(self._database.clock()),
        )  # fmt: skip
        with self._database.read() as connection:
            newest = connection.execute(query).scalar()
        return None if newest is None else datetime.fromtimestamp(newest, UTC)

    def examples(self, task: str, topic: str, label: str, start: datetime, end: datetime, limit: int) -> list[str]:
        """The ids of up to `limit` documents published from `start` to before `end`, earliest first, one of a story."""
        query = (
            select(_docs.document_id, _docs.story, _docs.topics)
            .where(_docs.task == task, _docs.published >= start, _docs.published < end, _docs.label == label)
            .order_by(_docs.published, _docs.serial)
        )
        found: dict[int, str] = {}
        with (
            self._database.read() as connection,
            connection.execution_options(stream_results=True).execute(query) as rows,
        ):
            for row in rows:
                if topic == ALL or topic in row.topics:
                    found.setdefault(row.story, row.document_id)
                if len(found) >= limit:
                    break
        return list(found.values())

    def expire(self, task: str, keep: timedelta) -> Iterator[int]:
        """Delete what is older than `keep`: documents by when they came, counts by the minute by their own time.

        Counts by the quarter of an hour stay. Stories of the past month stay, and older ones while something waits,
        since copies of them may be among it. Each transaction is short, so that writers are not blocked for long;
        yields how many rows it has deleted.
        """
        now = self._database.clock()
        yield from self._delete(opinion_documents, _docs.at < now - keep)
        before = int((now - keep).timestamp())
        for topic in (ALL, *self.topics(task)):  # one at a time: the key begins with it
            of_topic = and_(_counts.task == task, _counts.topic == topic, _counts.step_s == STEPS_S[0])
            yield from self._delete(opinion_counts, and_(of_topic, _counts.start < before))
        if not self.next_batch(task, 1):
            oldest = int((now - _STORIES_KEPT).timestamp())
            first_bucket = Stories.buckets(oldest, oldest)[0]
            yield from self._delete(opinion_bands, opinion_bands.c.bucket < first_bucket)
            yield from self._delete(opinion_stories, opinion_stories.c.first < first_bucket * Stories.BUCKET_S)

    def _delete(self, table: Table, condition: ColumnElement[bool]) -> Iterator[int]:
        """Delete the rows that fulfil the condition, some at a time; yields how many, while there are any."""
        key = list(table.primary_key)
        some = select(*key).where(condition).limit(_EXPIRED_AT_ONCE)
        statement = delete(table).where(tuple_(*key).in_(some))
        while deleted := self._database.write(lambda connection: connection.execute(statement).rowcount):
            yield deleted


def erase_documents(
    connection: Connection, users: Sequence[str], predictions: Sequence[tuple[str, str]],
    claimed: Sequence[tuple[str, str]],
) -> Counter[str]:  # fmt: skip
    """Delete the documents of users and of predictions, counted or not, and their stories. How many, by task.

    Predictions are given as (task, id). Of those that are `claimed`, only documents without a user are deleted.
    Counts stay: they name nobody. A later copy of such a text begins a story of its own.
    """
    conditions: list[_Condition] = [partial(_is_of_users, some) for some in chunks(users)]
    for pairs, is_of in ((predictions, _is_of_predictions), (claimed, _is_anonymous_of)):
        by_task: defaultdict[str, list[str]] = defaultdict(list)
        for task, id_ in pairs:
            by_task[task].append(id_)
        conditions += [partial(is_of, task, some) for task, ids in by_task.items() for some in chunks(ids)]
    deleted = Counter[str]()
    for condition in conditions:
        stories = sorted(set(connection.scalars(select(_docs.story).where(condition(opinion_documents)))))
        for some_stories in chunks(stories):
            _erase_stories(connection, some_stories)
        for table in (opinion_inbox, opinion_documents):
            deleted.update(connection.scalars(delete(table).where(condition(table)).returning(table.c.task)))
    return deleted


def _is_of_users(users: Sequence[str], table: Table) -> ColumnElement[bool]:
    return table.c.user.in_(users)


def _is_of_predictions(task: str, ids: Sequence[str], table: Table) -> ColumnElement[bool]:
    return and_(table.c.task == task, table.c.prediction_id.in_(ids))


def _is_anonymous_of(task: str, ids: Sequence[str], table: Table) -> ColumnElement[bool]:
    return and_(_is_of_predictions(task, ids, table), table.c.user.is_(None))


def _erase_stories(connection: Connection, ids: Sequence[int]) -> None:
    c, bands = opinion_stories.c, opinion_bands.c
    spans = connection.execute(select(c.first, c.last).where(c.id.in_(ids))).all()
    buckets = sorted({bucket for first, last in spans for bucket in Stories.buckets(first, last)})
    connection.execute(delete(opinion_bands).where(bands.bucket.in_(buckets), bands.story.in_(ids)))
    connection.execute(delete(opinion_stories).where(c.id.in_(ids)))


# SQLite reads every row of an index for DISTINCT; this reads one a topic.
_TOPICS = text(
    """
    WITH RECURSIVE found (topic) AS (
        SELECT min(topic) FROM opinion_counts WHERE task = :task
        UNION ALL
        SELECT (SELECT min(topic) FROM opinion_counts WHERE task = :task AND topic > found.topic)
        FROM found WHERE found.topic IS NOT NULL
    )
    SELECT topic FROM found WHERE topic IS NOT NULL
    """
)


def _those_in(connection: Connection, query: Select[Any], column: Any, values: Sequence[Any]) -> set[Any]:
    """What `query` finds whose `column` is one of `values`."""
    found: set[Any] = set()
    for some in chunks(values):
        found.update(connection.scalars(query.where(column.in_(some))))
    return found


def _count_story(deltas: _Deltas, story: Story, topic: str, second: int, label: str) -> None:
    """Count a story in a topic at the time of its first text there, and no longer at a later one's."""
    before = story.topics.get(topic)
    if before is not None and before[0] <= second:
        return
    if before is not None:
        _add(deltas, topic, before[0], (_STORIES, _STORY_COLUMN_OF_LABEL.get(before[1])), -1)
    _add(deltas, topic, second, (_STORIES, _STORY_COLUMN_OF_LABEL.get(label)), 1)
    story.topics[topic] = [second, label]
    story.changed = True


def _add(deltas: _Deltas, topic: str, second: int, columns: Iterable[int | None], number: int) -> None:
    numbers = [column for column in columns if column is not None]
    for step_s in STEPS_S:
        delta = deltas[topic, step_s, second - second % step_s]
        for column in numbers:
            delta[column] += number


def _second(moment: datetime) -> int:
    return int(moment.timestamp() // 1)


def _key(document_id: str) -> bytes:
    return hashlib.sha256(clean(document_id).encode()).digest()[:_KEY_BYTES]


def _to_inbox(item: NewDocument) -> dict[str, Any]:
    document = item.document
    return {
        "task": item.task,
        "document": [
            document.document_id, document.text, document.published.isoformat(), list(document.topics), document.label,
            document.score,
        ],
        "at": document.at,
        "prediction_id": document.prediction_id,
        "user": item.user,
    }  # fmt: skip


def _from_inbox(row: Any) -> Waiting:
    document_id, text_, published, topics, label, score = row.document
    document = Document(
        document_id, text_, datetime.fromisoformat(published), tuple(topics), label, score, row.prediction_id, row.at
    )
    return Waiting(row.serial, document, row.user)
