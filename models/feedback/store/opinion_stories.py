"""The stories that a batch of documents may belong to, read before it and written after it."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, ClassVar, TypeVar

import orjson
from sqlalchemy import Connection, bindparam, insert, update

from models.feedback.store.schema import opinion_stories
from models.opinion.stories import Sketch, is_copy

T = TypeVar("T", int, tuple[int, int, int])
_MAX_COMPARED = 32  # stories that a text is compared with
_MAX_IN_BAND = 100  # stories that share a band in a bucket; it is of a pattern with other numbers or names in each text
_AT_ONCE = 5000
_c = opinion_stories.c
_UPDATE = (
    update(opinion_stories)
    .where(_c.id == bindparam("story"))
    .values(first=bindparam("first"), last=bindparam("last"), topics=bindparam("topics"))
)


@dataclass(slots=True)
class Story:
    """A text and its copies. Times are in seconds since 1970."""

    id: int
    first: int
    last: int
    words: array[int]
    topics: dict[str, list[Any]]
    """by topic: the time and the label of the story's first text there"""
    new: bool = False
    changed: bool = False


class Stories:
    """The stories within `window_s` of a batch. Use it within one transaction: `load`, then for each document in the
    order of time `find` or `begin`, and `extend`; then `save`."""

    BUCKET_S: ClassVar[int] = 6 * 86_400  # a batch in the order of time changes few pages of the bands' index

    def __init__(self, connection: Connection, task: str, window_s: int):
        self._connection = connection
        self._task = task
        self._window_s = window_s
        self._stories: dict[int, Story] = {}
        self._in_band: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        """by bucket and band: the ids of the stories"""
        self._new_bands: list[tuple[int, int, int]] = []

    @classmethod
    def buckets(cls, first: int, last: int) -> range:
        """The numbers of the stretches of time from `first` to `last`.

        A story's bands are stored under that of the text that began it, which lies between its first and its last.
        """
        return range(first // cls.BUCKET_S, last // cls.BUCKET_S + 1)

    def _buckets_near(self, second: int) -> range:
        """Those of all stories that a text at this time may belong to."""
        return self.buckets(second - self._window_s, second + self._window_s)

    def load(self, texts: Iterable[tuple[int, Sequence[int]]]) -> None:
        """Read the stories that may have copies among the texts, given as their times and bands."""
        bands_of: defaultdict[int, set[int]] = defaultdict(set)
        for second, bands in texts:
            for bucket in self._buckets_near(second):
                bands_of[bucket].update(bands)
        for bucket, wanted in bands_of.items():
            where = f"bucket = {bucket} AND band IN"
            for band, story in self._select("SELECT band, story FROM opinion_bands WHERE " + where, wanted):
                self._in_band[bucket, band].append(story)
        ids = {id_ for found in self._in_band.values() for id_ in found}
        columns = "id, first, last, words, topics, task"
        for id_, first, last, hashes, topics, task in self._select(
            f"SELECT {columns} FROM opinion_stories WHERE id IN", ids
        ):
            if task == self._task:
                self._stories[id_] = Story(id_, first, last, array("I", bytes(hashes)), orjson.loads(topics))

    def _select(self, statement: str, numbers: Iterable[int]) -> Iterator[Any]:
        """The rows that `statement` selects with these integers behind its IN.

        They are written into it: a batch has 20,000, and as parameters they would take half of its time.
        """
        for some in _slices(numbers):
            yield from self._connection.exec_driver_sql(f"{statement} ({','.join(map(str, some))})").all()

    def find(self, second: int, sketch: Sketch) -> Story | None:
        """The story of which a text at this time is a copy.

        The likely ones are compared: a band in common counts the more, the fewer stories have it, since those that many
        have are of a pattern.
        """
        likely: defaultdict[int, float] = defaultdict(float)
        for place in product(self._buckets_near(second), sketch.bands):
            found = self._in_band.get(place, ())
            for id_ in found:
                likely[id_] += 1 / len(found)
        best = sorted(likely, key=likely.__getitem__, reverse=True)
        stories = (self._stories.get(id_) for id_ in best)  # None: another task's
        near = (story for story in stories if story is not None and self._is_near(story, second))
        return next((story for story in islice(near, _MAX_COMPARED) if is_copy(story.words, sketch.words)), None)

    def _is_near(self, story: Story, second: int) -> bool:
        return max(story.last, second) - min(story.first, second) <= self._window_s

    def begin(self, id_: int, second: int, sketch: Sketch) -> Story:
        story = self._stories[id_] = Story(id_, second, second, sketch.words, {}, new=True)
        bucket = second // self.BUCKET_S
        for band in sketch.bands:
            found = self._in_band[bucket, band]
            if len(found) < _MAX_IN_BAND:
                found.append(id_)
                self._new_bands.append((bucket, band, id_))
        return story

    @staticmethod
    def extend(story: Story, second: int) -> None:
        """Add a text's time to its story."""
        if not story.first <= second <= story.last:
            story.first, story.last = min(story.first, second), max(story.last, second)
            story.changed = True

    def save(self) -> None:
        """Write what began and what changed."""
        new = [self._row(story) for story in self._stories.values() if story.new]
        if new:
            self._connection.execute(insert(opinion_stories), new)
        changed = [story for story in self._stories.values() if story.changed and not story.new]
        if changed:
            rows = [{"story": s.id, "first": s.first, "last": s.last, "topics": s.topics} for s in changed]
            self._connection.execute(_UPDATE, rows)
        for some in _slices(self._new_bands):
            rows_of_integers = ",".join(map(str, some))
            self._connection.exec_driver_sql(
                f"INSERT INTO opinion_bands (bucket, band, story) VALUES {rows_of_integers} ON CONFLICT DO NOTHING"
            )

    def _row(self, story: Story) -> dict[str, Any]:
        return {
            "id": story.id, "task": self._task, "first": story.first, "last": story.last,
            "words": story.words.tobytes(), "topics": story.topics,
        }  # fmt: skip


def _slices(values: Iterable[T]) -> Iterator[list[T]]:
    """The values in their order, so many as one statement has."""
    ordered = sorted(values)
    return (ordered[start : start + _AT_ONCE] for start in range(0, len(ordered), _AT_ONCE))
