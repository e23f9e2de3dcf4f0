"""Lines of a file, sent to a server in requests that it takes, whatever its limits and those of proxies are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple, Protocol, TypeVar

from serve.cli.client import ServerError, call

MAX_BYTES = 1 << 18  # a quarter of the server's default limit, and of what proxies in front of it allow
_MAX_WAIT_S = 10.0
_TOO_LATE = 504  # may be for many texts; for a single one, the server is slow
_AROUND = 100  # bytes of a request around its items, at most


class Line(NamedTuple):
    """An item of a request as JSON, and the number of its line in the file."""

    number: int
    item: bytes


class _HasItem(Protocol):
    @property
    def item(self) -> bytes: ...


_Item = TypeVar("_Item", bound=_HasItem)
Results = list[tuple[int, dict[str, Any]]]
"""(line number, result) of each line; a result is what the server says of it, or `{"error", "code"}`"""


@dataclass
class Sender:
    """Sends lines to `path` of the server at `url`, as the list `items` of a request.

    `results` is the list with a result for each of them in the response. A request is tried `tries` times while the
    server asks to wait, and sent in halves where it answers with one of `halve_at`. Where it refuses a single line so,
    that is the line's result, unless it only had no time for it.
    """

    url: str
    path: str
    items: str
    results: str
    max_items: int
    max_bytes: int = MAX_BYTES
    tries: int = 5
    halve_at: tuple[int, ...] = (413, 422)
    stopped: Event = field(default_factory=Event)
    """once set, nothing waits any more for a server that is busy"""

    def batches(self, lines: Iterable[_Item]) -> Iterator[list[_Item]]:
        """The lines in lists that each fit into one request, by what is known of the server so far."""
        batch: list[_Item] = []
        size = 0
        for line in lines:
            if batch and (len(batch) >= self.max_items or size + len(line.item) > self.max_bytes):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line.item) + 1
        if batch:
            yield batch

    def send(self, batch: Sequence[Line]) -> Iterator[Results]:
        """Send the batch; the results of each request that was needed, in order.

        Raises ServerError when the server does not answer, or when it refuses for a reason that is not in the lines.
        """
        try:
            results = self._post(batch)
        except ServerError as error:
            is_alone = len(batch) == 1
            if error.status not in self.halve_at or (is_alone and error.status == _TOO_LATE):
                raise
            if is_alone:
                yield [(batch[0].number, {"error": str(error), "code": error.body.get("code", "")})]
                return
            self._learn(error, len(batch))
            middle = len(batch) // 2
            yield from self.send(batch[:middle])
            yield from self.send(batch[middle:])
        else:
            yield list(zip((line.number for line in batch), results, strict=True))

    def _learn(self, error: ServerError, sent: int) -> None:
        """Make later batches as small as the server says that they must be."""
        limit = error.body.get("limit")
        if not isinstance(limit, int) or limit < 1:
            return
        if error.status == 413:
            self.max_bytes = min(self.max_bytes, max(1, limit - _AROUND))
        elif limit < sent:
            self.max_items = min(self.max_items, limit)

    def _post(self, batch: Sequence[Line]) -> list[dict[str, Any]]:
        """One result per line. Waits as the server asks while it is overloaded or its store is away."""
        body = b'{"' + self.items.encode() + b'":[' + b",".join(line.item for line in batch) + b"]}"
        tries = 0
        while True:
            try:
                answer = call(self.url, self.path, body)
            except ServerError as error:
                tries += 1
                if self.results in error.body:
                    answer = error.body
                elif tries < self.tries and self._waited(error):
                    continue
                else:
                    raise
            return self._results(answer, len(batch))

    def _waited(self, error: ServerError) -> bool:
        """Whether the server asked to wait, which was done."""
        wait_s = error.retry_after_s
        return wait_s is not None and not self.stopped.wait(min(wait_s, _MAX_WAIT_S))

    def _results(self, answer: Any, count: int) -> list[dict[str, Any]]:
        """A result a line; where the response has an id, with it and the line's place in the request."""
        try:
            results: list[dict[str, Any]] = answer[self.results]
            if len(results) != count:
                raise KeyError(self.results)
        except (KeyError, TypeError):
            raise ServerError(f"What answers at {self.url} is not Flywheel: it sends no {self.results}.") from None
        if "id" in answer:
            return [{**result, "id": answer["id"], "index": index} for index, result in enumerate(results)]
        return results
