"""The queue of texts that wait for a model, and the choice of the next batch.

A batch costs as much as its tokens, plus a fraction of a token for each token of padding, plus a constant for starting
the model. So a batch holds texts of similar length, up to the size beyond which it gets no cheaper per token: a short
text never waits for a long batch to end, and a busy model loses no throughput (docs/decisions/0010-batching.md).
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
from serve.config import BatchingConfig

Row = NDArray[np.float32]

# Later arrivals overtake a request for this many times its own running time, for _MAX_OVERTAKING_S at most: shortest
# first, without starvation.
_OVERTAKING_FACTOR = 8.0
_MAX_OVERTAKING_S = 0.5
_SERVE_BY_AGE_AFTER_S = 0.3  # a queue this far behind is served oldest first
_DECAY = 0.1  # weight of the newest batch in the estimated cost of a token
_MAX_SLOWDOWN = 10.0  # a batch that took longer than this many times its estimate counts as if it took that long
_DROP_EVERY_S = 0.01
_START_TOKENS = 30  # fixed cost of a batch in tokens: starting the model, and a turn of the event loop


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """The texts of one request. `future` is done when every text has its output or one has failed."""

    deadline: float
    future: asyncio.Future[list[Row]]
    outputs: list[Row | None]
    missing: int
    """texts without an output yet"""
    since: float = field(default_factory=time.monotonic)
    disconnected: Callable[[], bool] = bool
    """whether the client has closed the connection"""
    started: bool = False
    """whether the model has run one of its texts"""

    def abandoned(self, now: float) -> bool:
        """Whether the request is done, past its deadline, or its client has disconnected."""
        return self.future.done() or self.deadline <= now or self.disconnected()

    def set_output(self, index: int, row: Row) -> None:
        self.outputs[index] = row
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result([output for output in self.outputs if output is not None])

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class Entry:
    """One text in the queue, with the requests (and the index in each) that its output goes to."""

    ids: Ids
    length: int
    virtual_arrival: float
    """arrival plus the time for which others may overtake; the earliest goes first"""
    places: list[tuple[QueuedRequest, int]]

    @property
    def since(self) -> float:
        return min(request.since for request, _ in self.places)

    def abandoned(self, now: float) -> bool:
        """Whether no request waits for this text any more."""
        return all(request.abandoned(now) for request, _ in self.places)

    def set_output(self, row: Row) -> None:
        for request, index in self.places:
            request.set_output(index, row)

    def fail(self, error: Exception) -> None:
        for request, _ in self.places:
            request.fail(error)


_by_virtual_arrival = attrgetter("virtual_arrival")
_by_length = attrgetter("length")


class RequestQueue:
    """The queue of one model: texts sorted by length, and an estimate of the time they take.

    - `seconds_per_token`: initial estimate of a token's cost.
    - `padding_cost`: cost of a padding token as a fraction of a token's.
    """

    def __init__(self, settings: BatchingConfig, seconds_per_token: float = 0.0, padding_cost: float = 1.0):
        self._max_tokens = settings.max_tokens()
        self._max_texts = settings.texts
        self._max_length_ratio = settings.max_length_ratio
        self._padding_cost = padding_cost
        self._entries: list[Entry] = []  # sorted by length
        self._tokens = 0
        # Exponentially decayed sums over recent batches, not a mean of costs per batch: a batch of one short text costs
        # twice as much per token, and a short queue produces many of those.
        self._ran_tokens = float(self._max_tokens)
        self._ran_seconds = seconds_per_token * self._ran_tokens
        self._tokens_before: tuple[list[float], list[int]] | None = (
            None  # arrivals in order, and the tokens before each
        )
        self._dropped_at = -math.inf  # the last search for abandoned texts

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, request: QueuedRequest, texts: Sequence[tuple[Ids, list[int]]]) -> list[Entry]:
        """Queue `texts` of `request`: the token ids of each, and the indexes of its output in the request."""
        tokens = sum(len(ids) for ids, _ in texts)
        virtual_arrival = request.since + self.overtaking_s(tokens)
        entries = [
            Entry(ids, len(ids), virtual_arrival, [(request, index) for index in indexes]) for ids, indexes in texts
        ]
        self._tokens += tokens
        self._tokens_before = None
        for entry in entries:
            bisect.insort(self._entries, entry, key=_by_length)
        return entries

    def join(self, request: QueuedRequest, entry: Entry, index: int) -> None:
        """Give `request` the output of a text that is queued or running already."""
        entry.places.append((request, index))
        self._tokens_before = None
        entry.virtual_arrival = min(entry.virtual_arrival, request.since + self.overtaking_s(entry.length))

    @property
    def seconds(self) -> float:
        """Estimated seconds of work in the queue."""
        return self._seconds_per_token * self._tokens

    def seconds_before(self, tokens: int) -> float:
        """Estimated seconds of queued work ahead of a request of `tokens` that arrives now."""
        if (
            self._tokens_before is None
        ):  # cached: an overloaded server refuses most requests, which leave this unchanged
            in_turn = sorted(self._entries, key=_by_virtual_arrival)
            self._tokens_before = [e.virtual_arrival for e in in_turn], [0, *accumulate(e.length for e in in_turn)]
        arrivals, lengths = self._tokens_before
        virtual_arrival = time.monotonic() + self.overtaking_s(tokens)
        return self._seconds_per_token * lengths[bisect.bisect_right(arrivals, virtual_arrival)]

    def seconds_of(self, batch: Sequence[Entry]) -> float:
        """Estimated seconds of work in `batch`, which has left the queue."""
        return self._seconds_per_token * sum(entry.length for entry in batch)

    @property
    def _seconds_per_token(self) -> float:
        return self._ran_seconds / self._ran_tokens

    def observe_batch(self, tokens: int, seconds: float) -> None:
        """Update the cost of a token with a batch of `tokens`, without padding, as the queue is counted."""
        if not self._ran_seconds:
            self._ran_tokens, self._ran_seconds = float(tokens), seconds
            return
        # A single stall of the machine must not spoil the estimate; a lasting slowdown shows in the next batches too.
        bounded = min(seconds, self._seconds_per_token * tokens * _MAX_SLOWDOWN)
        self._ran_tokens += tokens - self._ran_tokens * _DECAY
        self._ran_seconds += bounded - self._ran_seconds * _DECAY

    def drop(self) -> list[Entry]:
        """Remove and return abandoned texts. Searches at most every `_DROP_EVERY_S`, since the queue may be long."""
        now = time.monotonic()
        if now - self._dropped_at < _DROP_EVERY_S:
            return []
        self._dropped_at = now
        dead = [entry for entry in self._entries if entry.abandoned(now)]
        if dead:
            gone = set(map(id, dead))
            self._entries = [e for e in self._entries if id(e) not in gone]
            self._tokens -= sum(e.length for e in dead)
            self._tokens_before = None
        return dead

    def take(self) -> list[Entry]:
        """Remove and return the next batch, sorted by length: the text with the earliest virtual arrival, and others.

        The others are those nearest to it in length, as long as each lowers the batch's cost per token. When the queue
        is far behind, they are the oldest of similar length instead: otherwise batches of a common length would keep
        overtaking a rare one. Empty when the queue is empty.
        """
        if not self._entries:
            return []
        chosen = min(self._entries, key=_by_virtual_arrival)
        late = time.monotonic() - chosen.virtual_arrival > _SERVE_BY_AGE_AFTER_S
        batch = self._oldest_of_like_length(chosen) if late else self._nearest_to(chosen)
        self._tokens -= sum(entry.length for entry in batch)
        self._tokens_before = None
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

    def _oldest_of_like_length(self, chosen: Entry) -> list[Entry]:
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

    def oldest_since(self) -> float | None:
        """When (time.monotonic) the oldest text came; None for an empty queue. Takes time for each text."""
        return min((entry.since for entry in self._entries), default=None)

    def clear(self) -> list[Entry]:
        entries, self._entries, self._tokens, self._tokens_before = self._entries, [], 0, None
        return entries

    def _cost(self, low: int, high: int, tokens: int) -> float:
        """Cost per token of a batch of the entries from `low` to `high`, with `tokens` in all; inf when not allowed.

        The unit is the cost of one token; padding and the start of the model are included.
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

    def overtaking_s(self, tokens: int) -> float:
        """Seconds for which later arrivals may overtake a request of `tokens`."""
        return min(_OVERTAKING_FACTOR * tokens * self._seconds_per_token, _MAX_OVERTAKING_S)
