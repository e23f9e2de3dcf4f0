"""Consoles, arguments and options that the commands share."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer
from rich.console import Console
from rich.text import Text

from models.users import decode_text
from serve.config import LoggingConfig
from serve.logs import format_of, log_to_stdout

_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "note": logging.INFO}
_LOG_WIDTH = 10_000  # rich would wrap a line at 80 columns
URL = "http://127.0.0.1:8000"
out = Console()
err = Console(stderr=True, soft_wrap=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration; default ./flywheel.yaml.")]
TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="intent, sentiment, recommendation, or your own.")]
ItemsOption = Annotated[
    Path | None, typer.Option(help="For recommendation: a file with `item_id`, `text` and numbers of the items.")
]
UsersOption = Annotated[
    Path | None, typer.Option(help="For recommendation: a file with `user_id` and numbers of the users.")
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=THEIRS", help="What the file calls a column, such as text=body; text may be several."),
]
UrlOption = Annotated[str, typer.Option("--url", help="The server.", envvar="FLYWHEEL_URL")]


def accept_any_text() -> None:
    """Make text of arguments that Python could not decode, and let a terminal of any character set show all text.

    Python turns bytes of an argument that are not UTF-8 into surrogates, which neither JSON nor a database takes. Names
    of existing files stay as they are.
    """
    sys.argv = [argument if os.path.exists(argument) else _without_surrogates(argument) for argument in sys.argv]
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # replaced by an object of another kind
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _without_surrogates(argument: str) -> str:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return decode_text(os.fsencode(argument))
    return argument


def print_as_log(settings: LoggingConfig, process: str) -> None:
    """Log to stdout in this process; in a JSON log, each line that it prints is a record, too."""
    log_to_stdout(settings, process)
    if format_of(settings) == "json":
        for console in (out, err):
            console.file = cast(TextIO, _LinesAsRecords())
            console.width = _LOG_WIDTH


class _LinesAsRecords:
    """A text stream whose lines become records of the log; `error: ` and `warning: ` are levels."""

    encoding = "utf-8"
    _log = logging.getLogger("flywheel.server")

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            plain = Text.from_ansi(line).plain.strip()
            if plain:
                level, _, message = plain.partition(": ")
                self._log.log(_LEVELS.get(level, logging.INFO), "%s", message if level in _LEVELS else plain)
        return len(text)

    def flush(self) -> None:
        """A line is complete at its end."""

    def isatty(self) -> bool:
        return False


def say(text: str) -> None:
    """Print to stdout; where nobody reads it any more, as after `flywheel up | head -1`, a server goes on without."""
    try:
        out.print(text)
    except (OSError, SystemExit):  # rich turns BrokenPipeError into the latter
        with open(os.devnull, "wb") as nothing:
            for descriptor in (1, 2):
                os.dup2(nothing.fileno(), descriptor)


def print_error(error: object) -> None:
    """Print to stderr without markup: a message may quote brackets from a user's file."""
    err.print(Text.assemble(("error: ", "red"), str(error)))
