"""The queue of texts that wait for a model, and which of them make the next batch.

A run of the model costs about as much as the tokens in it, plus a share of that for each token of padding, plus what
some twenty cost for starting it. So a batch holds texts of like length, up to a number of tokens beyond which it gets
no cheaper per token: a short text never waits for a long batch to end, and a busy model loses nothing
(docs/decisions/0010-batching.md).
"""

from __future__ import annotations

import asyncio
import bisect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from export.tokenizer import Ids
from serve.config import Batching

Row = NDArray[np.float32]

# A job is overtaken by what arrives within this many times its own running time, and no longer than _MAX_OVERTAKEN_S:
# the shortest goes first, and nobody waits for ever.
_PATIENCE = 8.0
_MAX_OVERTAKEN_S = 0.5
_LATE_S = 0.3  # a queue this long behind is served by age
_DECAY = 0.1  # of what a token costs, with each batch
_MAX_SURPRISE = 10.0
_DROP_EVERY_S = 0.01
_START_TOKENS = 30  # what a batch more costs, as so many tokens: the start of the model, and the event loop's turn


@dataclass(slots=True, eq=False)
class Job:
    """One request's texts. `future` is done when each text has its output, or one has failed."""

    deadline: float
    future: asyncio.Future[list[Row]]
    outputs: list[Row | None]
    missing: int
    since: float = field(default_factory=time.monotonic)
    disconnected: Callable[[], bool] = bool
    """whether the client has hung up"""
    started: bool = False
    """whether the model has taken one of its texts"""

    def abandoned(self, now: float) -> bool:
        """Nobody waits for the answer: it is there, it is too late, or the client has hung up."""
        return self.future.done() or self.deadline <= now or self.disconnected()

    def answer(self, index: int, row: Row) -> None:
        self.outputs[index] = row
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result([output for output in self.outputs if output is not None])

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class Entry:
    """One text in the queue, and the places in jobs that its output goes to: several where requests ask the same."""

    ids: Ids
    length: int
    virtual_arrival: float
    """when this text would have arrived, had its job been of no length; the earliest goes first"""
    places: list[tuple[Job, int]]

    @property
    def since(self) -> float:
        return min(job.since for job, _ in self.places)

    def abandoned(self, now: float) -> bool:
        """No request waits for this text."""
        return all(job.abandoned(now) for job, _ in self.places)

    def answer(self, row: Row) -> None:
        for job, index in self.places:
            job.answer(index, row)

    def fail(self, error: Exception) -> None:
        for job, _ in self.places:
            job.fail(error)


_by_virtual_arrival = attrgetter("virtual_arrival")
_by_length = attrgetter("length")


class RequestQueue:
    """The queue of one model: texts by length, and how long the model will need for them.

    `seconds_a_token` is a first guess of what a token costs; `padding_cost` what a token of padding costs, of that.
    """

    def __init__(self, settings: Batching, seconds_a_token: float = 0.0, padding_cost: float = 1.0):
        self._max_tokens = settings.max_tokens()
        self._max_texts = settings.texts
        self._max_length_ratio = settings.max_length_ratio
        self._padding_cost = padding_cost  # of a token's
        self._entries: list[Entry] = []  # by length
        self._tokens = 0
        # What ran lately, older batches with less weight. Sums, not the mean of each batch's cost: a batch of one short
        # text costs twice as much a token, and there are many of those in a queue that is soon served.
        self._ran_tokens = float(self._max_tokens)
        self._ran_seconds = seconds_a_token * self._ran_tokens
        self._before: tuple[list[float], list[int]] | None = None  # arrivals in order, and the tokens before each
        self._looked = -math.inf  # for what nobody waits for any more

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, job: Job, texts: Sequence[tuple[Ids, list[int]]]) -> list[Entry]:
        """Queue what `job` still lacks: token ids, and the places their output has in the job."""
        tokens = sum(len(ids) for ids, _ in texts)
        virtual_arrival = job.since + self.overtaken_s(tokens)
        entries = [Entry(ids, len(ids), virtual_arrival, [(job, index) for index in indexes]) for ids, indexes in texts]
        self._tokens += tokens
        self._before = None
        for entry in entries:
            bisect.insort(self._entries, entry, key=_by_length)
        return entries

    def join(self, job: Job, entry: Entry, index: int) -> None:
        """Let `job` have the output of a text that waits or runs already."""
        entry.places.append((job, index))
        self._before = None
        entry.virtual_arrival = min(entry.virtual_arrival, job.since + self.overtaken_s(entry.length))

    @property
    def seconds(self) -> float:
        """How long the model needs for all that waits."""
        return self._seconds_a_token * self._tokens

    def seconds_before(self, tokens: int) -> float:
        """How long the model needs for what would go before a job of `tokens` that arrived now."""
        if self._before is None:  # refusing takes most of an overloaded server's requests, and changes nothing here
            in_turn = sorted(self._entries, key=_by_virtual_arrival)
            self._before = [e.virtual_arrival for e in in_turn], [0, *accumulate(e.length for e in in_turn)]
        arrivals, lengths = self._before
        virtual_arrival = time.monotonic() + self.overtaken_s(tokens)
        return self._seconds_a_token * lengths[bisect.bisect_right(arrivals, virtual_arrival)]

    def seconds_of(self, batch: Sequence[Entry]) -> float:
        """How long the model needs for a batch that was taken."""
        return self._seconds_a_token * sum(entry.length for entry in batch)

    @property
    def _seconds_a_token(self) -> float:
        return self._ran_seconds / self._ran_tokens

    def ran(self, tokens: int, seconds: float) -> None:
        """Learn from a batch of `tokens`, padding not included: what waits is counted without it too."""
        if not self._ran_seconds:
            self._ran_tokens, self._ran_seconds = float(tokens), seconds
            return
        # One batch that met a stall of the machine says little of the next; a machine that became slow says it again.
        seen = min(seconds, self._seconds_a_token * tokens * _MAX_SURPRISE)
        self._ran_tokens += tokens - self._ran_tokens * _DECAY
        self._ran_seconds += seen - self._ran_seconds * _DECAY

    def drop(self) -> list[Entry]:
        """Remove and return abandoned texts. Looks a hundred times a second at most, since there may be many."""
        now = time.monotonic()
        if now - self._looked < _DROP_EVERY_S:
            return []
        self._looked = now
        dead = [entry for entry in self._entries if entry.abandoned(now)]
        if dead:
            gone = set(map(id, dead))
            self._entries = [e for e in self._entries if id(e) not in gone]
            self._tokens -= sum(e.length for e in dead)
            self._before = None
        return dead

    def take(self) -> list[Entry]:
        """Remove and return the next batch: the text that goes first and others of like length, shortest first.

        Empty when nothing waits.

        Those nearest to it in length, for as long as each makes a token of the batch cheaper. But where texts have
        waited for long already, those that have waited longest: a rare length would otherwise be overtaken by every
        batch of a common one.
        """
        if not self._entries:
            return []
        chosen = min(self._entries, key=_by_virtual_arrival)
        late = time.monotonic() - chosen.virtual_arrival > _LATE_S
        batch = self._oldest_like(chosen) if late else self._nearest_to(chosen)
        self._tokens -= sum(entry.length for entry in batch)
        self._before = None
        return batch

    def _nearest_to(self, chosen: Entry) -> list[Entry]:
        entries = self._entries
        low = entries.index(chosen, bisect.bisect_left(entries, chosen.length, key=_by_length))
        high, tokens = low + 1, chosen.length
        cost = (_START_TOKENS + tokens) / tokens
        while True:
            shorter = self._cost(low - 1, high, tokens + entries[low - 1].length) if low else math.inf
            longer = self._cost(low, high + 1, tokens + entries[high].length) if high < len(entries) else math.inf
            if min(shorter, longer) >= cost:
                break
            if shorter < longer:
                low -= 1
                tokens += entries[low].length
            else:
                tokens += entries[high].length
                high += 1
            cost = min(shorter, longer)
        batch = entries[low:high]
        del entries[low:high]
        return batch

    def _oldest_like(self, chosen: Entry) -> list[Entry]:
        entries, length = self._entries, chosen.length
        first = bisect.bisect_left(entries, int(length / self._max_length_ratio), key=_by_length)
        last = bisect.bisect_right(entries, length * self._max_length_ratio + 1, key=_by_length)
        batch, shortest, longest = [chosen], length, length
        for entry in sorted(entries[first:last], key=_by_virtual_arrival):
            if entry is chosen:
                continue
            low, high = min(shortest, entry.length), max(longest, entry.length)
            if self._fits(low, high, len(batch) + 1):
                batch.append(entry)
                shortest, longest = low, high
        gone = set(map(id, batch))
        entries[first:last] = [entry for entry in entries[first:last] if id(entry) not in gone]
        return sorted(batch, key=_by_length)

    def clear(self) -> list[Entry]:
        entries, self._entries, self._tokens, self._before = self._entries, [], 0, None
        return entries

    def _cost(self, low: int, high: int, tokens: int) -> float:
        """What a token costs in a batch of the texts from `low` to `high`, which have `tokens`; infinite if it is none.

        In tokens that run: those of the padding as well, for what they cost, and the start of the model.
        """
        texts, longest = high - low, self._entries[high - 1].length
        if not self._fits(self._entries[low].length, longest, texts):
            return math.inf
        return (_START_TOKENS + tokens + self._padding_cost * (texts * longest - tokens)) / tokens

    def _fits(self, shortest: int, longest: int, texts: int) -> bool:
        padded = texts * longest
        return (
            texts <= self._max_texts and padded <= self._max_tokens and longest <= shortest * self._max_length_ratio + 1
        )

    def overtaken_s(self, tokens: int) -> float:
        """For how long later arrivals may go before a job of `tokens`; a busy model gets that much work meanwhile."""
        return min(_PATIENCE * tokens * self._seconds_a_token, _MAX_OVERTAKEN_S)
