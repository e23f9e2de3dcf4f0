"""How long trends over a year of a million texts on 30 topics take: asked over HTTP, from a store filled directly.

The documents and their counts are written into the SQLite file of a server on a copy of the home, as the controller
writes them. Each question is asked several times; a store of this size is in the page cache by then. With `--check`, a
median above the bound ends with 1.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from loadtests.servers import COMMAND, copied, free_port, home, up

BOUND_MS = 200.0
EXAMPLES = """examples:
  python loadtests/quality/trends.py                    a million texts; takes some minutes to fill
  python loadtests/quality/trends.py --texts 100000     fewer
  python loadtests/quality/trends.py --check            exit with 1 if a trend takes longer than 200 ms
"""
_TOPICS, _DAYS, _DAY_S = 30, 365, 86_400
_END = 1_767_225_600  # 2026-01-01
_START = _END - _DAYS * _DAY_S
_LABELS = ("positive", "neutral", "negative")
_SETTINGS = "tasks: {sentiment: {replicas: 1}}\nlearning: {automatic: false}\nopinion: {keep_days: 3650}\n"
_YEAR = ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
QUESTIONS = (
    ("a year by the hour", *_YEAR, "1h", "UTC"),
    ("a year by the hour, in Kathmandu", *_YEAR, "1h", "Asia/Kathmandu"),
    ("a year by the day", *_YEAR, "1d", "UTC"),
    ("a year by the day, in Berlin", *_YEAR, "1d", "Europe/Berlin"),
    ("a year by the week, in New York", *_YEAR, "1w", "America/New_York"),
    ("a year by the month, in Berlin", *_YEAR, "1mo", "Europe/Berlin"),
    ("104 days by 15 minutes", "2025-09-18T00:00:00Z", "2025-12-31T00:00:00Z", "15m", "UTC"),
    ("97 days by 14 minutes", "2025-09-24T00:00:00Z", "2025-12-30T00:00:00Z", "14m", "UTC"),
    ("208 days by 30 minutes", "2025-06-06T00:00:00Z", "2025-12-31T00:00:00Z", "30m", "UTC"),
    ("6.9 days by the minute", "2025-12-24T00:00:00Z", "2025-12-30T22:00:00Z", "1m", "UTC"),
)
Integers = NDArray[np.int64]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7, help="how often each question is asked")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 if a median is above {BOUND_MS:g} ms")
    options = parser.parse_args()
    with copied(home()) as own, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "flywheel.yaml").write_text(_SETTINGS, encoding="utf-8")
        port = free_port()
        with up(COMMAND, Path(folder), port, {"FLYWHEEL_HOME": str(own)}):
            url = f"http://127.0.0.1:{port}/v2/opinion"
            _get(f"{url}/topics")  # makes the tables
            started = time.perf_counter()
            fill(own / "feedback.db", options.texts)
            size_mb = sum(file.stat().st_size for file in own.glob("feedback.db*")) / 1e6
            print(f"filled with {options.texts:,} texts in {time.perf_counter() - started:.0f} s: {size_mb:.0f} MB")
            slowest = ask_all(url, options.texts, options.rounds)
    print(f"slowest median: {slowest:.0f} ms (bound: {BOUND_MS:g} ms)")
    return int(options.check and slowest > BOUND_MS)


def fill(database: Path, texts: int) -> None:
    """Write documents, and their counts by the minute and by the quarter of an hour, in a few transactions."""
    chance = np.random.default_rng(1)
    weekday = 1 - 0.7 * (np.arange(_DAYS) % 7 >= 5)
    days = chance.choice(_DAYS, texts, p=weekday / weekday.sum())
    hours = np.clip(chance.normal(13, 4.5, texts), 0, 23.99)
    seconds = np.sort(_START + days * _DAY_S + (hours * 3600).astype(np.int64))
    weights = 1 / np.arange(1, _TOPICS + 1)
    topics = chance.choice(_TOPICS, texts, p=weights / weights.sum()).astype(np.int64)
    labels = chance.choice(3, texts, p=(0.3, 0.4, 0.3)).astype(np.int64)
    is_story = chance.random(texts) < 0.6
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        for start in range(0, texts, 50_000):
            part = slice(start, start + 50_000)
            rows = _documents(start, seconds[part], topics[part], labels[part], chance)
            with connection:
                connection.executemany(f"INSERT INTO opinion_documents VALUES ({','.join('?' * 12)})", rows)
        for step_s in (60, 900):
            for topic in range(-1, _TOPICS):
                chosen = slice(None) if topic < 0 else topics == topic
                name = "" if topic < 0 else f"topic {topic}"
                counts = _counts(name, step_s, seconds[chosen], labels[chosen], is_story[chosen])
                with connection:
                    connection.executemany(f"INSERT INTO opinion_counts VALUES ({','.join('?' * 11)})", counts)


def _documents(
    first: int, seconds: Integers, topics: Integers, labels: Integers, chance: np.random.Generator
) -> Iterator[tuple[Any, ...]]:
    keys = chance.bytes(16 * len(seconds))
    for i, (second, topic, label) in enumerate(zip(seconds.tolist(), topics.tolist(), labels.tolist(), strict=True)):
        at = time.strftime("%Y-%m-%d %H:%M:%S.000000", time.gmtime(second))
        id_ = f"wire-{first + i}"
        yield (
            first + i + 1, "sentiment", keys[16 * i : 16 * i + 16], id_, first + i + 1, at, _LABELS[label], 0.9,
            f'["topic {topic}"]', f"{second:012x}{first + i:020x}", at, None,
        )  # fmt: skip


def _counts(
    topic: str, step_s: int, seconds: Integers, labels: Integers, is_story: NDArray[np.bool_]
) -> Iterator[tuple[Any, ...]]:
    starts, at = np.unique(seconds // step_s * step_s, return_inverse=True)

    def count(which: NDArray[np.bool_]) -> list[int]:
        numbers: list[int] = np.bincount(at[which], minlength=len(starts)).tolist()
        return numbers

    columns = [
        np.bincount(at, minlength=len(starts)).tolist(),
        *(count(labels == label) for label in range(3)),
        count(is_story),
        count(is_story & (labels == 0)),
        count(is_story & (labels == 2)),
    ]
    for start, *numbers in zip(starts.tolist(), *columns, strict=True):
        yield ("sentiment", topic, step_s, start, *numbers)


def ask_all(url: str, texts: int, rounds: int) -> float:
    """Ask each question `rounds` times, of all documents and of topics, and print a table. The slowest median."""
    table = Table("trend", "of", "points", "texts", "median, ms", "slowest, ms")
    slowest = 0.0
    for title, start, end, step, zone in QUESTIONS:
        for topic in (None, "topic 0", "topic 29"):
            parameters = {"start": start, "end": end, "step": step, "tz": zone, **({"topic": topic} if topic else {})}
            asked = f"{url}/trends?{urllib.parse.urlencode(parameters)}"
            points, found_ms = _timed(asked, rounds)
            median = statistics.median(found_ms)
            slowest = max(slowest, median)
            total = sum(point["texts"] for point in points["points"])
            if topic is None and start == _YEAR[0] and total != texts:
                raise SystemExit(f"{title}: {total:,} texts were counted, {texts:,} were written")
            table.add_row(
                title,
                topic or "all",
                f"{len(points['points']):,}",
                f"{total:,}",
                f"{median:.0f}",
                f"{max(found_ms):.0f}",
            )
    topics, found_ms = _timed(f"{url}/topics", rounds)
    table.add_row(
        "topics", "", f"{len(topics['topics'])}", "", f"{statistics.median(found_ms):.0f}", f"{max(found_ms):.0f}"
    )
    Console(width=100).print(table)
    return max(slowest, statistics.median(found_ms))


def _timed(url: str, rounds: int) -> tuple[Any, list[float]]:
    """The answer, and the milliseconds of each of `rounds` requests after a first one."""
    answer = _get(url)
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        _get(url)
        found.append(1000 * (time.perf_counter() - started))
    return answer, found


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.loads(response.read())


if __name__ == "__main__":
    sys.exit(main())
