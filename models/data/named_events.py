"""Events under the names of the file, such as `purchase`, as the events that Flywheel knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.data.columns import Chunk
from models.data.records import DatasetError
from models.data.report import Finding
from models.tasks.event_names import EVENT_KINDS

_MAX_EXAMPLES = 5


class NamedEvents:
    """The column `event` of a file, read chunk by chunk. Without names, it is left as it is."""

    def __init__(self, path: Path, ours_of: Mapping[str, str]):
        self._path, self._ours_of = path, ours_of
        self._found = Counter[str]()
        self._left_out = Counter[str]()

    def read(self, chunk: Chunk) -> Chunk:
        """The chunk with our names of events, without the rows of events that have none."""
        if not self._ours_of:
            return chunk
        written = list(chunk.get("event"))
        self._found.update(event for event in written if isinstance(event, str))
        events = [self._ours(event) for event in written]
        keep = np.array([event is not None for event in events], np.bool_)
        self._left_out.update(event for event, ours in zip(written, events, strict=True) if ours is None)
        return chunk.with_events(events, keep)

    def _ours(self, event: Any) -> Any:
        """Our name; None for an event that was not named. What is no name at all stays, and is a fault of its row."""
        if not isinstance(event, str) or not event:
            return event or ""
        return self._ours_of.get(event, event if event in EVENT_KINDS else None)

    def findings(self) -> Iterator[Finding]:
        """Which events were left out. Raises DatasetError when the file lacks one that was named."""
        if missing := [event for event in self._ours_of if event not in self._found]:
            shown = ", ".join(repr(event)[:40] for event, _ in self._found.most_common(20))
            raise DatasetError(
                f"{self._path}: no row has the event {missing[0]!r}, which --event names; there are: {shown}."
            )
        if self._left_out:
            shown_events = [f"{event!r} ({count:,})" for event, count in self._left_out.most_common(_MAX_EXAMPLES)]
            yield Finding(
                "events_left_out", "warning", self._left_out.total(),
                f"{self._left_out.total():,} rows have events that --event does not name. They are left out.",
                "Name those that say something about the user's choice.", tuple(shown_events),
            )  # fmt: skip
