"""Consoles, arguments and options that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

URL = "http://127.0.0.1:8000"
out = Console()
err = Console(stderr=True, soft_wrap=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration; default ./flywheel.yaml.")]
TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="intent, sentiment, recommendation, or your own.")]
UrlOption = Annotated[str, typer.Option("--url", help="The server.", envvar="FLYWHEEL_URL")]


def print_error(error: object) -> None:
    """Print to stderr without markup: a message may quote brackets from a user's file."""
    err.print(Text.assemble(("error: ", "red"), str(error)))
