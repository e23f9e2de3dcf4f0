"""The command `score`: predictions for the texts of a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from models.data.naming import parse_naming
from models.data.records import DatasetError
from models.tasks.base import ClassifierTask, get_task
from serve.cli.batches import Line, Sender
from serve.cli.client import ServerError
from serve.cli.score_files import Output, Row, count_rows, read_rows
from serve.cli.terminal import URL, ColumnOption, TaskArgument, UrlOption, err, out, print_error

commands = typer.Typer()

_BATCH_ITEMS = 128  # the server's default limit
_TRIES = 100  # of a batch, while the server is busy with other requests
_MAX_REFUSED_SHOWN = 20


@commands.command()
def score(
    task: TaskArgument,
    file: Annotated[Path, typer.Argument(help="CSV, JSONL or Parquet with a column `text`.")],
    out_file: Annotated[Path, typer.Option("--out", help="The predictions: a .csv or .jsonl file.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an output that was not finished.")] = False,
    column: ColumnOption = None,
    parallel: Annotated[int, typer.Option(min=1, max=32, help="Requests at a time.")] = 2,
    url: UrlOption = URL,
) -> None:
    """Predict the labels of a file's texts with a running server.

    The output has a row for each row of the file, in order: its line, text, prediction, and `id` and `index` for
    feedback. Where a row cannot be predicted, `error` says why, and the exit code is 1. For sentiment the file may
    have columns `topic`, `published` (RFC 3339 with a zone, or seconds since 1970) and `document_id`: opinion trends
    then count each text in its own time, and only once, however often it is sent.

    Examples:

        flywheel score sentiment headlines.csv --out predictions.csv

        flywheel score sentiment headlines.csv --out predictions.csv --resume

        flywheel score intent export.csv --out predictions.csv --column text=subject --column text=body

        flywheel score intent questions.parquet --out predictions.jsonl --url http://flywheel.example:8000
    """
    kind = get_task(task)
    if not issubclass(kind, ClassifierTask):
        print_error(f"score is for texts that get labels, and {task} gives none. See: flywheel predict --help")
        raise typer.Exit(1)
    if out_file.exists() and file.exists() and out_file.samefile(file):
        raise DatasetError(f"{out_file} is the file to read. Give another --out.")
    field = "documents" if "documents" in kind.Request.model_fields else "texts"
    try:
        naming = parse_naming(column or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    total = count_rows(file, naming)
    rows = read_rows(file, kind, field, naming)
    sender = Sender(
        url, f"/v2/models/{task}/predict", field, "predictions", _BATCH_ITEMS, tries=_TRIES, halve_at=(413, 422, 504)
    )
    refused = 0
    with Output(out_file, _columns(kind, field), resume=resume) as output:
        skip_scored(rows, output)
        try:
            with _progress() as progress:
                bar = progress.add_task(f"{task}: {file.name}", total=total, completed=output.rows)
                for scored in score_rows(sender, rows, parallel):
                    output.append(scored)
                    refused += _print_refused(file, scored, refused)
                    progress.update(bar, completed=output.rows)
        except (ServerError, DatasetError, KeyboardInterrupt) as error:
            print_error(
                f"{str(error) or 'interrupted'} ({output.rows:,} of {total:,} rows are in {out_file}; --resume goes on)"
            )
            raise typer.Exit(1) from None
    out.print(f"{task}: {output.rows:,} rows in {out_file}", highlight=False, markup=False, soft_wrap=True)
    if refused:
        err.print(f"{refused:,} rows have no prediction; see `error` in {out_file}", highlight=False, markup=False)
        raise typer.Exit(1)


def score_rows(sender: Sender, rows: Iterable[Row], parallel: int) -> Iterator[list[dict[str, Any]]]:
    """The rows of the output in batches, in order, of so many requests at a time. Raises ServerError."""
    batches = sender.batches(rows)
    waiting: deque[Future[list[dict[str, Any]]]] = deque()
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="score")
    try:
        while True:
            waiting.extend(pool.submit(_scored, sender, batch) for batch in islice(batches, parallel - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        sender.stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _scored(sender: Sender, batch: Sequence[Row]) -> list[dict[str, Any]]:
    good = [Line(row.number, row.item) for row in batch if not row.fault]
    results = {number: result for part in (sender.send(good) if good else ()) for number, result in part}
    return [
        {
            "line": row.number,
            "text": row.text,
            **({"document_id": row.document_id} if row.document_id else {}),
            **({"error": row.fault} if row.fault else results[row.number]),
        }
        for row in batch
    ]


def skip_scored(rows: Iterator[Row], output: Output) -> None:
    """Skip the rows that the output has. Raises DatasetError when they are not those of this file."""
    if not output.rows:
        return
    last = next(islice(rows, output.rows - 1, None), None)
    if last is None or (str(last.number), last.text) != (str(output.last.get("line")), output.last.get("text")):
        raise DatasetError(f"{output.path}: its last row is not from this file. Give another --out.")


def _columns(task: type[ClassifierTask], field: str) -> list[str]:
    """The columns of a CSV output; JSONL has all that the server answers."""
    ids = ["document_id"] if field == "documents" else []
    return ["line", "text", *ids, *(tensor.name for tensor in task.outputs), "id", "index", "error"]


def _print_refused(file: Path, scored: Sequence[dict[str, Any]], before: int) -> int:
    """Print why rows have no prediction, the first ones; their number."""
    refused = [row for row in scored if "error" in row]
    for row in refused[: max(0, _MAX_REFUSED_SHOWN - before)]:
        err.print(f"{file}, line {row['line']}: {row['error']}", highlight=False, markup=False)
    return len(refused)


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=out, refresh_per_second=2)
