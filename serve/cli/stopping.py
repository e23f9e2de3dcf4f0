"""How `flywheel up` is stopped: SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a closed terminal) ask for the same, once.

systemd, supervisord, `timeout` and terminals signal all processes of a group at once. Only this process may act on it,
since it drains the others, so the signals are blocked, here and in all processes that Ray starts, which inherit the
mask, and a thread waits for them (docs/decisions/0030-hosts.md).
"""

from __future__ import annotations

import logging
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serve.logs import last_line

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MAX_ABORT_S = 8.0  # of a start; `docker stop` waits 10 s


class StopSignals:
    """Waits for the stop signals of this process. Create it before any other thread: a thread inherits its mask.

    The first signal sets `requested`. Later ones change nothing: supervisors repeat them, and a drain must not be cut
    short by that. A SIGHUP that is ignored already, as under nohup, stays ignored.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.ready = False
        """Set when the server answers. A stop that comes earlier ends the process after 8 s at the latest."""
        self._training: int | None = None
        self._numbers = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)
        threading.Thread(target=self._watch, name="stop signals", daemon=True).start()

    @contextmanager
    def passed_to(self, group: int) -> Iterator[None]:
        """In this block the first signal ends the process group `group`; one that came before ends it at once."""
        self._training = group
        try:
            if self.requested.is_set():
                _end(group)
            yield
        finally:
            self._training = None

    def _watch(self) -> None:
        while True:
            number = signal.sigwait(self._numbers)
            if number == signal.SIGHUP:
                _let_go_of_terminal()
            if self.requested.is_set():
                continue
            self.requested.set()
            if self._training is not None:
                _end(self._training)
            if not self.ready:
                end = threading.Timer(_MAX_ABORT_S, self._abandon_start)
                end.daemon = True
                end.start()

    def _abandon_start(self) -> None:
        if not self.ready:  # it became ready with the signal, and drains
            abandon(last_line("stopped before it was ready", logging.INFO), 0)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Block the stop signals in this thread, and in the threads and processes that it starts in the block."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def accept_stop_signals() -> None:
    """Let the stop signals end this process again, whose parent has blocked them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def abandon(message: bytes, code: int) -> None:
    """End this process with `code`, and all below it, at once. Ray's workers would notice later that they are alone."""
    for pid in _descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(OSError):
        os.write(2 if code else 1, message)
    os._exit(code)


def _descendants(pid: int) -> list[int]:
    """The processes that `pid` has started, and theirs; none on a system without /proc."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parents[int(folder.name)] = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _end(group: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.killpg(group, signal.SIGTERM)


def _let_go_of_terminal() -> None:
    """Write to /dev/null instead of a terminal, which is gone: a write to it would fail, and end a drain."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                with open(os.devnull, "wb") as nothing:
                    os.dup2(nothing.fileno(), descriptor)
