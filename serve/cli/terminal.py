"""Consoles, arguments and options that the commands share."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from models.users import decode_text

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
