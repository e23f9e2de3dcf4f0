"""Standard output and error that may lie on a full disk or be a closed pipe: what cannot be written there is dropped.

The server's process must not end for want of a line in its log. Nor must Ray's workers: Ray directs
their output to files of its session, and prints a line for its log monitor before an actor's first call. On a full disk
this raises OSError, which ends the process: a replica that died could not be replaced until there is room.
"""

from __future__ import annotations

import io
import sys

from serve.rayserve import reports


class _Dropping(io.RawIOBase):
    """A file descriptor to which every write succeeds."""

    def __init__(self, descriptor: int):
        self._file = open(descriptor, "wb", buffering=0, closefd=False)  # noqa: SIM115 - as long as the process

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        try:
            return self._file.write(view)
        except OSError:
            return view.nbytes


def drop_what_cannot_be_written() -> None:
    """Replace this process's sys.stdout and sys.stderr. They keep their file descriptors."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            raw = _Dropping(stream.fileno())
        except (AttributeError, OSError):  # none, or not a file
            continue
        errors = stream.errors or "backslashreplace"
        dropping = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=stream.encoding, errors=errors, line_buffering=True
        )
        setattr(sys, name, dropping)
    reports.record("log_disk")
