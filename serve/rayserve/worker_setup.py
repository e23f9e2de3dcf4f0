"""What each of Ray's worker processes does first, in mode full."""

from __future__ import annotations

from serve.rayserve import idle_wakeups, worker_output


def prepare() -> None:
    """Called by Ray in each of its worker processes before their first task or call."""
    worker_output.drop_what_cannot_be_written()
    idle_wakeups.slow()
