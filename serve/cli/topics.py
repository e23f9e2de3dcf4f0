"""The command `topics check`: what a file of topics has in it, and what it catches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from models.data.columns import read_chunks
from models.opinion.coverage import Coverage, coverage_of
from models.opinion.topics import OTHER, Matcher, Topics, Word
from models.opinion.topics_file import TopicsError, read_topics
from serve.cli.terminal import err, out, print_error

commands = typer.Typer()
topics = typer.Typer(no_args_is_help=True, help="Check a file of topics for opinion monitoring.")
commands.add_typer(topics, name="topics")

_MAX_ROWS = 200
_MAX_SHOWN = 20
_MAX_CHARACTERS = 100


@topics.command()
def check(
    file: Annotated[Path, typer.Argument(help="The file of topics, as `tasks.sentiment.options.topics` names it.")],
    texts: Annotated[Path | None, typer.Option(help="CSV, JSONL or Parquet with a column `text`.")] = None,
) -> None:
    """Check a file of topics, and show what each topic catches in texts of your own.

    With texts: the share of each topic with examples and its most frequent words, topics that come together, words
    that are never found, and what no topic catches. A file with faults is refused as the server would refuse it.

    Examples:

        flywheel topics check topics.yaml

        flywheel topics check topics.yaml --texts headlines.csv
    """
    try:
        read = read_topics(file)
    except TopicsError as error:
        print_error(error)
        raise typer.Exit(1) from None
    words = sum(len(topic.words) for topic in read.topics)
    _say(f"{file}: {len(read.topics):,} topics, {words:,} words with their names")
    for note in read.notes[:_MAX_SHOWN]:
        _say(f"note: {note}")
    _say_more(len(read.notes), "notes")
    if texts is None:
        _say("Give --texts FILE to see what each topic catches.")
        return
    with err.status(f"reading {texts}"):
        found = coverage_of(Matcher(read), _texts(texts))
    if not found.texts:
        print_error(f"{texts}: there are no texts.")
        raise typer.Exit(1)
    _print_topics(read, found)
    _print_pairs(found)
    _print_never(read, found)


def _texts(file: Path) -> Iterator[str]:
    for chunk in read_chunks(file, ("text",)):
        yield from (text for text in chunk.get("text") if isinstance(text, str) and text.strip())


def _print_topics(read: Topics, found: Coverage) -> None:
    table = Table("topic", "texts", "share", "words", "examples")
    most: dict[str, list[str]] = {}
    for (name, word), count in found.words.most_common():
        most.setdefault(name, []).append(f"{word.text} {count:,}")
    by_count = sorted(read.names, key=lambda name: -found.topics[name])
    for name in (*by_count[:_MAX_ROWS], OTHER):
        table.add_row(
            Text(name), f"{found.topics[name]:,}", f"{found.topics[name] / found.texts:.1%}",
            Text(", ".join(most.get(name, [])[:5])), Text("\n".join(map(_cut, found.examples[name]))),
        )  # fmt: skip
    out.print(table)
    _say(f"{found.texts:,} texts; {1 - found.topics[OTHER] / found.texts:.1%} have a topic")


def _print_pairs(found: Coverage) -> None:
    for (one, other), count in found.pairs.most_common(_MAX_SHOWN):
        shares = " and ".join(f"{count / found.topics[name]:.0%} of {name!r}" for name in (one, other))
        _say(f"together: {one!r} and {other!r} in {count:,} texts, {shares}")


def _print_never(read: Topics, found: Coverage) -> None:
    never = [(topic.name, word) for topic in read.topics for word in topic.words if not found.words[topic.name, word]]
    for name, word in never[:_MAX_SHOWN]:
        _say(f"never found: {_place(name, word)}")
    _say_more(len(never), "words that are never found")


def _place(name: str, word: Word) -> str:
    return f"the {word.kind} {word.text!r} of {name!r} (line {word.line})"


def _say_more(count: int, what: str) -> None:
    if count > _MAX_SHOWN:
        _say(f"{count - _MAX_SHOWN:,} more {what}")


def _say(sentence: str) -> None:
    out.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _cut(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())  # no control of the terminal
    return line if len(line) <= _MAX_CHARACTERS else line[:_MAX_CHARACTERS] + "…"
