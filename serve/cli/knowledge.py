"""The commands `knowledge import`, `list`, `delete` and `export`, which speak to a running server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from models.knowledge.types import Entry
from serve.cli.batches import MAX_BYTES
from serve.cli.client import ServerError, call
from serve.cli.knowledge_file import read_entries, write_entries
from serve.cli.terminal import URL, UrlOption, out, print_error

commands = typer.Typer()
knowledge = typer.Typer(no_args_is_help=True, help="Questions and answers that the server offers to customers.")
commands.add_typer(knowledge, name="knowledge")

TokenOption = Annotated[
    str | None,
    typer.Option("--token", help="The operator's token, if the server needs it.",
                 envvar="FLYWHEEL_SERVER__OPERATOR_TOKEN", show_envvar=True),
]  # fmt: skip
_PATH = "/v2/knowledge"
_BATCH = 500  # entries of a request
_PAGE = 1_000
_TRIES = 30
_MAX_WAIT_S = 10.0
_POLL_S = 1.0
_MAX_LISTED = 100
_MAX_CHARACTERS = 80


@knowledge.command(name="import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="CSV or JSONL with `question`, `answer`, and perhaps `id`, `language`, `tags`.")
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Delete all entries that are not in the file.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until all entries can be found.")] = True,
    url: UrlOption = URL,
    token: TokenOption = None,
) -> None:
    """Add the questions and answers of a file, or replace those that have changed.

    The file is checked whole before anything is sent; with a fault nothing is. Entries with the same id, or without
    ids the same question and language, replace each other, so a file can be imported again. Tags in a CSV cell are
    separated by `;`. Replicas find new entries within seconds, once their vectors are computed.

    Examples:

        flywheel knowledge import faq.csv

        flywheel knowledge import faq.csv --replace

        flywheel knowledge import faq.jsonl --no-wait --url http://flywheel.example:8000
    """
    read = read_entries(file)
    for note in read.notes:
        out.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    try:
        with _progress() as progress:
            written = _send(read.entries, url, token, progress)
            deleted = _delete_others(read.entries, url, token) if replace else 0
            if wait:
                _wait(url, token, progress)
    except ServerError as error:
        print_error(f"{error} (What was sent before is stored; the whole file can be imported again.)")
        raise typer.Exit(1) from None
    sentence = f"{written['added']:,} added, {written['changed']:,} changed, {written['unchanged']:,} as they were"
    out.print(
        f"{file}: {sentence}" + (f", {deleted:,} deleted" if replace else ""),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@knowledge.command(name="list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="Show so many.")] = _MAX_LISTED,
    url: UrlOption = URL,
    token: TokenOption = None,
) -> None:
    """List the entries in the order of their ids.

    Examples:

        flywheel knowledge list

        flywheel knowledge list --limit 1000
    """
    table, total, shown = Table("id", "language", "tags", "question", "answer"), 0, 0
    with _errors_as_sentences():
        for page in _pages(url, token, min(limit, _PAGE)):
            total = page["total"]
            for entry in page["entries"][: limit - shown]:
                shown += 1
                cells = (
                    entry["id"],
                    entry["language"] or "",
                    ", ".join(entry["tags"]),
                    entry["question"],
                    entry["answer"],
                )
                table.add_row(*(Text(_cut(cell)) for cell in cells))
            if shown >= limit:
                break
    if shown:
        out.print(table)
    out.print(f"{total:,} entries" + (f", {shown:,} shown" if shown < total else ""), highlight=False)


@knowledge.command()
def delete(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids, as `flywheel knowledge list` shows them.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Delete every entry.")] = False,
    url: UrlOption = URL,
    token: TokenOption = None,
) -> None:
    """Delete entries: no replica finds them after some seconds, and their bytes are overwritten in the store.

    Examples:

        flywheel knowledge delete returns-1 returns-2

        flywheel knowledge delete --all
    """
    if bool(ids) == all_:
        raise typer.BadParameter("give either ids or --all")
    with _errors_as_sentences():
        deleted = _delete({"all": True} if all_ else {"ids": ids}, url, token)
    out.print(f"{deleted:,} deleted", highlight=False)
    if ids and deleted < len(set(ids)):
        print_error("The other ids have no entry.")
        raise typer.Exit(1)


@knowledge.command()
def export(
    file: Annotated[Path, typer.Argument(help="The .csv or .jsonl file to write.")],
    url: UrlOption = URL,
    token: TokenOption = None,
) -> None:
    """Write all entries to a file, which `flywheel knowledge import` reads again.

    Examples:

        flywheel knowledge export faq.csv

        flywheel knowledge export faq.jsonl
    """
    with _errors_as_sentences():
        count = write_entries(file, (entry for page in _pages(url, token, _PAGE) for entry in page["entries"]))
    out.print(f"{file}: {count:,} entries", highlight=False, markup=False, soft_wrap=True)


def _send(entries: Sequence[Entry], url: str, token: str | None, progress: Progress) -> Counter[str]:
    """PUT the entries, some at a time; how many were added, changed and unchanged."""
    may_be = _patiently(url, _PATH, token=token, query={"limit": 1})["max_entries"]
    if len(entries) > may_be:
        raise ServerError(f"the file has {len(entries):,} entries, and there may be {may_be:,} (knowledge.max_entries)")
    counts, bar = Counter[str](), progress.add_task("sent", total=len(entries))
    for batch in _batches(entries):
        body = b'{"entries":[' + b",".join(batch) + b"]}"
        answer = _patiently(url, _PATH, body, method="PUT", token=token)
        counts.update({name: answer[name] for name in ("added", "changed", "unchanged")})
        progress.advance(bar, len(batch))
    return counts


def _batches(entries: Sequence[Entry]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for entry in entries:
        item = orjson.dumps(entry.model_dump(exclude_none=True))
        if batch and (len(batch) >= _BATCH or size + len(item) > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item) + 1
    if batch:
        yield batch


def _delete_others(entries: Sequence[Entry], url: str, token: str | None) -> int:
    """Delete what is not among `entries`; how many."""
    kept = {entry.key for entry in entries}
    others = [entry["id"] for page in _pages(url, token, _PAGE) for entry in page["entries"] if entry["id"] not in kept]
    return sum(_delete({"ids": others[at : at + _PAGE]}, url, token) for at in range(0, len(others), _PAGE))


def _delete(what: dict[str, Any], url: str, token: str | None) -> int:
    deleted: int = _patiently(url, _PATH, orjson.dumps(what), method="DELETE", token=token)["deleted"]
    return deleted


def _wait(url: str, token: str | None, progress: Progress) -> None:
    """Wait until every entry has a vector."""
    bar = None
    while True:
        state = _patiently(url, _PATH, token=token, query={"limit": 1})
        total, waiting = state["total"], state["waiting"]
        if bar is None:
            bar = progress.add_task("can be found", total=total)
        progress.update(bar, total=total, completed=total - waiting)
        if not waiting:
            return
        time.sleep(_POLL_S)


def _pages(url: str, token: str | None, size: int) -> Iterator[dict[str, Any]]:
    after: dict[str, str | int] = {}
    while True:
        page = _patiently(url, _PATH, token=token, query={"limit": size, **after})
        yield page
        if page["next"] is None:
            return
        after = {"after": page["next"]}


def _patiently(url: str, path: str, body: bytes | None = None, **options: Any) -> Any:
    """`call`, again as often as the server asks to wait."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return call(url, path, body, **options)
        except ServerError as error:
            if error.retry_after_s is None or not tries_left:
                raise
            time.sleep(min(error.retry_after_s, _MAX_WAIT_S))
    raise AssertionError("unreachable")


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    """Prints a ServerError, and exits with 1."""
    try:
        yield
    except ServerError as error:
        print_error(error)
        raise typer.Exit(1) from None


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=out, refresh_per_second=2)


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_CHARACTERS else line[:_MAX_CHARACTERS] + "…"
