"""The server's log: one record a line, as text or JSON, of all its processes, on the server's stdout.

Replicas, the controller and retrainings are processes of Ray, whose output goes to files of Ray's session. So each also
sends its records to the server's process, over a UNIX socket. A record has no text of a user: of an exception, its type
and the lines of code, not its message, which may quote what could not be read.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import socketserver
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from serve.request_context import current

if TYPE_CHECKING:  # importing it starts threads, which `serve.cli.stopping` is to come before
    from serve.config import LoggingConfig

SOCKET_VARIABLE = "LOG_SOCKET_OF_FLYWHEEL"  # one with the prefix FLYWHEEL_ would be a key of the configuration
ROOT = "flywheel"

_MAX_MESSAGE = 8_000
_MAX_TRACEBACK = 16_000
_MAX_CAUSES = 5
_SEND_TIMEOUT_S = 0.2  # the server's process is stopped; then records are lost, and requests are answered

Format = Literal["text", "json"]


def format_of(settings: LoggingConfig) -> Format:
    """The format that the settings mean in this process."""
    if settings.format == "auto":
        return "text" if sys.stdout is not None and sys.stdout.isatty() else "json"
    return settings.format


class Formatter(logging.Formatter):
    """`process` is the name in each record, of those that docs/logs-and-traces.md lists. `task` is its task."""

    def __init__(self, format_: Format, process: str, task: str = ""):
        super().__init__()
        self.is_json = format_ == "json"
        self._process = process
        self._task = task

    def format(self, record: logging.LogRecord) -> str:
        fields = self._fields(record)
        return orjson.dumps(fields).decode() if self.is_json else _as_text(fields)

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _encodable(record.getMessage()[:_MAX_MESSAGE]),
            "process": self._process,
            "pid": record.process,
        }
        if self._task:
            fields["task"] = self._task
        if (request := current.get()) is not None:
            fields["request_id"] = request.request_id
            if request.trace_id:
                fields["trace_id"] = request.trace_id
            if request.span is not None:
                fields["span_id"] = f"{request.span.span_id:016x}"
            if request.version:
                fields["version"] = request.version
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = without_message(record.exc_info[1])
            fields["traceback"] = safe_traceback(record.exc_info[1])
        return fields


def _as_text(fields: dict[str, Any]) -> str:
    request = f" (request {fields['request_id']})" if "request_id" in fields else ""
    process = f"{fields['process']}[{fields['pid']}]"
    line = f"{fields['time']} {fields['level']} {process} {fields['logger']}: {fields['message']}{request}"
    return f"{line}\n{fields['traceback']}" if "traceback" in fields else line


def _encodable(text: str) -> str:
    """`text` without lone surrogates, which JSON cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def without_message(error: BaseException) -> str:
    """An exception in words that quote nobody: its type, and what the operating system says."""
    name = type(error).__name__
    return f"{name}: {error.strerror}" if isinstance(error, OSError) and error.strerror else name


def safe_traceback(error: BaseException) -> str:
    """The lines of code on which `error` and its causes were raised, without their messages."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < _MAX_CAUSES:
        frames = "".join(traceback.format_tb(cause.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{without_message(cause)}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n\nwhich was caused by:\n".join(parts)[-_MAX_TRACEBACK:]


class _Safe(logging.Filter):
    """Replaces the exception of a record, once, by its safe form, for handlers of others that come after ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = safe_traceback(record.exc_info[1])  # a Formatter uses this if it is there
        return True


class _ToServer(logging.handlers.SocketHandler):
    """Sends each record as a line to the socket of the server's process; what cannot be sent is dropped."""

    def __init__(self, path: str):
        super().__init__(path, None)
        self.closeOnError = True

    def makePickle(self, record: logging.LogRecord) -> bytes:  # noqa: N802 - its name in the library
        """The line, in place of a pickle."""
        return self.format(record).encode("utf-8", "backslashreplace") + _END

    def makeSocket(self, timeout: float = _SEND_TIMEOUT_S) -> Any:  # noqa: N802
        return super().makeSocket(timeout)


_END = b"\n\0"  # a record of text may have several lines


def log_to_server(settings: LoggingConfig, process: str, task: str = "") -> None:
    """Send our records in this process of Ray to the server, or, on another machine, to stderr.

    `auto` has been decided for by the server's process. Records still go on to the handlers of the parent logger.
    """
    path = os.environ.get(SOCKET_VARIABLE, "")
    handler: logging.Handler = _ToServer(path) if path and os.path.exists(path) else logging.StreamHandler()
    _handle(handler, Formatter(format_of(settings), process, task))


def log_to_stdout(settings: LoggingConfig, process: str) -> None:
    """Write our records in this process to stdout."""
    _handle(logging.StreamHandler(sys.stdout), Formatter(format_of(settings), process))
    logging.getLogger(ROOT).setLevel(logging.INFO)


def adopt(name: str) -> None:
    """Write the records of another library's logger in this process as JSON too, if ours are."""
    ours = logging.getLogger(ROOT).handlers
    if any(isinstance(handler.formatter, Formatter) and handler.formatter.is_json for handler in ours):
        logging.getLogger(name).handlers[:] = ours


def _handle(handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.setFormatter(formatter)
    handler.addFilter(_Safe())
    logger = logging.getLogger(ROOT)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)


@contextmanager
def received_logs(path: Path) -> Iterator[None]:
    """In this block, write the records that processes of Ray send to the socket `path` to stdout."""
    with suppress(OSError):
        path.unlink()
    try:
        server = _Receiver(str(path), _Connection)
    except OSError as error:  # a full disk: the records are in Ray's files
        logging.getLogger("flywheel.server").warning("the log lacks the replicas' records: %s", error.strerror)
        yield
        return
    with server:
        threading.Thread(target=server.serve_forever, name="logs", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


class _Receiver(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # with 5, the default, records of processes that begin at once would be lost
    lock = threading.Lock()

    def write(self, record: bytes) -> None:
        with self.lock, suppress(OSError, ValueError, AttributeError):
            sys.stdout.write(record.decode("utf-8", "replace") + "\n")
            sys.stdout.flush()


class _Connection(socketserver.StreamRequestHandler):
    server: _Receiver

    def handle(self) -> None:
        rest = b""
        with suppress(OSError):
            while received := self.request.recv(1 << 16):
                *records, rest = (rest + received).split(_END)
                for record in records:
                    self.server.write(record)


def last_line(message: str, level: int) -> bytes:
    """`message` as a line of this process's log, for one that ends at once and writes it itself."""
    for handler in logging.getLogger(ROOT).handlers:
        if isinstance(handler.formatter, Formatter) and handler.formatter.is_json:
            record = logging.LogRecord("flywheel.server", level, __file__, 0, message, None, None)
            return handler.format(record).encode() + b"\n"
    return f"{message}\n".encode()
