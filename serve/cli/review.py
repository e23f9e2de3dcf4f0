"""`flywheel review`: what to label next, in the terminal or as a file that `flywheel feedback` takes back."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from models.discovery.review import MAX_SUGGESTIONS, Suggestion
from models.tasks.base import get_task
from serve.cli.settings import load_config
from serve.cli.terminal import ConfigOption, TaskArgument, out, print_error

SOURCE = "review"
COLUMNS = ("id", "index", "label", "source", "consent", "#text", "#prediction", "#why")
commands = typer.Typer()


@commands.command()
def review(
    task: TaskArgument,
    limit: Annotated[int, typer.Option(min=1, max=MAX_SUGGESTIONS, help="How many texts.")] = 20,
    file: Annotated[
        Path | None, typer.Option("--out", help="Write a CSV file to fill in, - for stdout; then: flywheel feedback.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """List the logged texts of TASK that are worth most to label: uncertain, frequent, different from each other.

    In the file of `--out`, fill in the column `label` and send it with `flywheel feedback`. Rows without a label and
    columns whose names begin with # are not sent. `consent` is `yes`: set it to `no` where a text must not be learned.

    Examples:

        flywheel review intent

        flywheel review intent --limit 100 --out todo.csv

        flywheel feedback intent todo.csv
    """
    from models.discovery.review import review as make
    from models.feedback.store import Store

    settings = load_config(config)
    if get_task(task).kind != "classifier":
        print_error(f"{task} ranks items; only classifiers have texts to label")
        raise typer.Exit(1)
    found = make(Store.open(settings.feedback.store_url(settings.home)), settings.home, task, limit)
    if file is not None:
        _write(found.suggestions, file)
    else:
        _print(found.suggestions)
    if str(file) != "-":
        unlabelled = f"of {found.texts:,} logged texts without a label"
        out.print(f"{task}: {len(found.suggestions):,} {unlabelled}", highlight=False)


def _print(suggestions: Sequence[Suggestion]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("text", "prediction", "why"):
        table.add_column(name, overflow="fold")
    for suggestion in suggestions:
        table.add_row(*map(_plain, (suggestion.text.text, _prediction(suggestion), suggestion.reason)))
    if suggestions:
        out.print(table)


def _write(suggestions: Sequence[Suggestion], file: Path) -> None:
    rows = (
        (s.text.id, s.text.index, "", SOURCE, "yes", _cell(s.text.text), _cell(_prediction(s)), _cell(s.reason))
        for s in suggestions
    )
    if str(file) == "-":
        csv.writer(sys.stdout).writerows((COLUMNS, *rows))
        return
    with file.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows((COLUMNS, *rows))


def _prediction(suggestion: Suggestion) -> str:
    prediction = suggestion.text.prediction
    return f"{prediction['label']} {prediction['score']:.2f}"


def _cell(text: str) -> str:
    """The text so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text


def _plain(text: str) -> str:
    """The text without control characters and markup, so that a logged text cannot write to the terminal."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else " " for c in text))
