"""Ratings of MovieLens-20M's size and skew: to see what reading and training take, not how good a model is.

MovieLens-20M has 20,000,263 ratings from 0.5 to 5 in halves, of 26,744 films by 138,493 users, each with at least 20
(median 68, the most 9,254); half the films have 18 ratings or fewer, one has 67,310. The files have about these counts,
titles made of a few words, and ratings from a low-rank model, so that there is something to learn. The same options
write the same rows: 19.4 million, since a user's repeated films are dropped, in about a minute of CPU time.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv
from pyarrow import parquet
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

USERS, ITEMS, EVENTS = 138_493, 26_744, 20_000_263
_MIN_OF_USER, _MEDIAN_OF_USER, _MAX_OF_USER = 20, 68, 9_254
_CHUNK_USERS = 2_000
_FACTORS = 8
_FIRST, _LAST = 789_652_009, 1_427_784_002  # times of the first and the last rating of MovieLens-20M
_GENRES = ("Action", "Animation", "Comedy", "Crime", "Documentary", "Drama", "Horror", "Romance")  # one a factor
_ADJECTIVES = ("Silent", "Last", "Golden", "Broken", "Hidden", "Long", "Red", "Winter", "Lost", "Perfect")
_NOUNS = ("River", "Promise", "Machine", "Detective", "Summer", "City", "Letter", "Voyage", "Monster", "Wedding")
_PLACES = ("in Paris", "of Ice", "at Noon", "on Mars", "by the Sea", "of Glass", "in the Dark", "from Texas", "", "")
EXAMPLES = """examples:
  python loadtests/quality/events.py /tmp/events                   19 million, as Parquet (164 MB)
  python loadtests/quality/events.py /tmp/events --format csv      the same as CSV (650 MB)
  python loadtests/quality/events.py /tmp/events --events 1000000  fewer users of the same kind
  flywheel train recommendation --data /tmp/events/events.parquet --items /tmp/events/items.csv
"""


@dataclass(frozen=True)
class World:
    """The films: how often each is rated, how much it is liked, and by whom."""

    popularity: NDArray[np.float64]
    """(items,): cumulative, up to 1"""
    quality: NDArray[np.float64]
    factors: NDArray[np.float64]
    """(items, factors)"""

    @classmethod
    def of(cls, rng: np.random.Generator) -> World:
        # Zipf's law, flattened at the head: the first has 67,000 of 20 million, the one in the middle 18.
        shares = (np.arange(ITEMS) + 385.0) ** -2.3
        order = rng.permutation(ITEMS)
        popularity = np.cumsum(shares[order])
        factors = rng.normal(0, 0.35, (ITEMS, _FACTORS))
        factors[np.arange(ITEMS), rng.integers(0, _FACTORS, ITEMS)] += 1.0  # of its genre
        return cls(popularity / popularity[-1], rng.normal(0, 0.4, ITEMS) + 0.2 * (order < ITEMS // 20), factors)


def main() -> int:
    options = parse()
    options.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    world = World.of(rng)
    write_items(options.folder / "items.csv", world, rng)
    counts = counts_of_users(options.events, rng)
    path = options.folder / f"events.{options.format}"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(f"users in {path.name}", total=len(counts))
        rows = write_events(path, chunks(world, counts, rng), lambda users: progress.advance(bar, users))
    print(f"{path}: {rows:,} events of {len(counts):,} users; {options.folder / 'items.csv'}: {ITEMS:,} items")
    return 0


def parse() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=formatter)
    parser.add_argument("folder", type=Path, help="where to write events.parquet or events.csv, and items.csv")
    parser.add_argument("--events", type=int, default=EVENTS, help=f"how many, about; default: {EVENTS:,}")
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet", help="default: parquet")
    parser.add_argument("--seed", type=int, default=0, help="of all draws; default: 0")
    options = parser.parse_args()
    if options.events < 1_000:
        parser.error("--events: give 1000 or more")
    return options


def counts_of_users(events: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many events each user has, so that it is `events` in all; of fewer events, of fewer users."""
    users = max(10, round(USERS * events / EVENTS))
    spread = rng.lognormal(np.log(_MEDIAN_OF_USER - _MIN_OF_USER), 1.36, users)
    scale = (events / users - _MIN_OF_USER) / spread.mean()
    return np.minimum(_MIN_OF_USER + (spread * scale).astype(np.int64), _MAX_OF_USER)


def chunks(world: World, counts: NDArray[np.int64], rng: np.random.Generator) -> Iterator[tuple[int, pa.Table]]:
    """(users, their events) some thousand users at a time."""
    for start in range(0, len(counts), _CHUNK_USERS):
        part = counts[start : start + _CHUNK_USERS]
        user, item = draw_items(world, part, rng)
        tastes = rng.normal(0, 0.45, (len(part), _FACTORS))
        mood = rng.normal(0, 0.4, len(part))
        liking = 3.4 + mood[user] + world.quality[item] + (tastes[user] * world.factors[item]).sum(1)
        rating = np.clip(np.round((liking + rng.normal(0, 0.8, len(user))) * 2) / 2, 0.5, 5.0)
        begun = rng.uniform(_FIRST, _LAST, len(part))
        time = np.minimum((begun[user] + rng.exponential(3e5, len(user))).astype(np.int64), _LAST)
        order = np.lexsort((time, user))
        yield len(part), pa.table({
            "user_id": (user + start + 1)[order], "item_id": (item + 1)[order],
            "event": pa.DictionaryArray.from_arrays(np.zeros(len(user), np.int8), ["rating"]).cast(pa.string()),
            "value": rating[order].astype(np.float32), "time": time[order],
        })  # fmt: skip


def draw_items(
    world: World, counts: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(user, item) of each event: `counts` items a user, by popularity, none twice."""
    pairs = np.zeros(0, np.int64)
    missing = counts
    for _ in range(8):
        user = np.repeat(np.arange(len(counts)), missing)
        item = np.searchsorted(world.popularity, rng.random(len(user)), side="right")
        pairs = np.unique(np.concatenate([pairs, user * ITEMS + np.minimum(item, ITEMS - 1)]))
        missing = counts - np.bincount(pairs // ITEMS, minlength=len(counts))
        if not missing.any():
            break
    return pairs // ITEMS, pairs % ITEMS


def write_items(path: Path, world: World, rng: np.random.Generator) -> None:
    words = [rng.choice(words, ITEMS) for words in (_ADJECTIVES, _NOUNS, _PLACES)]
    years = rng.integers(1930, 2016, ITEMS)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("item_id", "text", "year"))
        for at in range(ITEMS):
            title = " ".join(filter(None, (str(words[0][at]), str(words[1][at]), str(words[2][at]))))
            genre = _GENRES[int(world.factors[at].argmax())]
            writer.writerow((at + 1, f"The {title} ({years[at]}). {genre}", years[at]))


def write_events(path: Path, tables: Iterator[tuple[int, pa.Table]], done: Callable[[int], None]) -> int:
    """Write the tables to `path`; `done` is called with the users of each. How many rows."""
    rows, writer = 0, None
    for users, table in tables:
        if writer is None:
            opened = parquet.ParquetWriter if path.suffix == ".parquet" else arrow_csv.CSVWriter
            writer = opened(path, table.schema)
        writer.write_table(table)
        rows += len(table)
        done(users)
    if writer is not None:
        writer.close()
    return rows


if __name__ == "__main__":
    sys.exit(main())
