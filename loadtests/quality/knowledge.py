"""Whether the knowledge base finds what is asked in other words, and says nothing where it knows nothing; and how soon.

A server on a copy of the home gets the 1,000 entries of data/faq.csv. 300 questions about them, in other words, and 200
that no entry answers are asked by `POST /v2/knowledge/search`, with every similarity shown. The half `choose` gives the
bound on the similarity that the product should have; the figures are of the half `report`, with the bound that it has.
Then the base is filled up to 10,000 entries, and `predict` is asked with `"knowledge"` true and false in turns.

With `--check`, a missed bound ends with 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from rich.console import Console
from rich.table import Table

from loadtests.servers import COMMAND, copied, free_port, home, up

EXAMPLES = """examples:
  python loadtests/quality/knowledge.py             all of it: three minutes
  python loadtests/quality/knowledge.py --check     the same, and exit 1 when a bound is missed
  python loadtests/quality/knowledge.py --fill 0    without the time at 10,000 entries
"""
MIN_FIRST, MIN_UNANSWERED, MAX_ADDED_MS = 0.85, 0.90, 2.0
DATA = Path(__file__).parent / "data"
_PREDICT = "/v2/models/intent/predict"
_SETTINGS = "tasks: {intent: {replicas: 1}}\nlearning: {automatic: false}\ncache: {texts: 0}\n"
_BATCH = 500
_FOUND_WITHIN_S = 300


class Asked(NamedTuple):
    """A question: the entry that answers it, None for none; its half; the ids nearest to it, and the similarity."""

    id: str | None
    part: str
    kind: str
    found: str
    similarity: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fill", type=int, default=10_000, help="entries at which the time is measured; 0: none")
    parser.add_argument("--rounds", type=int, default=150, help="requests of each kind for the time")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    options = parser.parse_args()
    added_ms = None
    with copied(home()) as own, tempfile.TemporaryDirectory() as folder:
        if (home() / "encoders").is_dir():  # else the server makes it, which takes half a minute
            shutil.copytree(home() / "encoders", own / "encoders")
        (Path(folder) / "flywheel.yaml").write_text(_SETTINGS, encoding="utf-8")
        port = free_port()
        with up(COMMAND, Path(folder), port, {"FLYWHEEL_HOME": str(own)}):
            url = f"http://127.0.0.1:{port}"
            entries = [_entry(row) for row in _rows(DATA / "faq.csv")]
            print(f"{len(entries):,} entries are found after {put(url, entries):.0f} s")
            served = float(_call(f"{url}/v2/knowledge")["min_similarity"])
            first, unanswered = report(list(ask(url)), served)
            if options.fill:
                more = list(filling(options.fill - len(entries)))
                print(f"{options.fill:,} entries are found after {put(url, more):.0f} s more")
                added_ms = time_of(port, options.fill, options.rounds)
    missed = [
        name
        for name, holds in (
            ("found first", first >= MIN_FIRST),
            ("unanswered", unanswered >= MIN_UNANSWERED),
            ("added time", added_ms is None or added_ms <= MAX_ADDED_MS),
        )
        if not holds
    ]
    print(f"missed: {', '.join(missed)}" if missed else "every bound holds")
    return int(options.check and bool(missed))


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(newline="", encoding="utf-8") as opened:
        if file.suffix == ".csv":
            yield from csv.DictReader(opened)
        else:
            yield from map(json.loads, opened)


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    tags = [tag.strip() for tag in row.get("tags", "").split(";") if tag.strip()]
    return {name: row[name] for name in ("id", "question", "answer", "language") if row.get(name)} | {"tags": tags}


def filling(count: int) -> Iterator[dict[str, Any]]:
    """Other entries, of made-up products, as a shop of many has them."""
    chance = random.Random(5)
    what = ("the battery of", "the filter of", "a cover for", "the manual of", "the remote of", "the charger of")
    ask = ("How do I replace", "Where can I buy", "Can I return", "How do I clean", "Do you still sell", "Who repairs")
    for number in range(count):
        name = "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(3)).title()
        question = f"{chance.choice(ask)} {chance.choice(what)} the {name} {chance.randrange(100, 1000)}?"
        yield {
            "id": f"fill-{number:05}",
            "question": question,
            "answer": f"See page {number} of its guide.",
            "tags": [],
        }


def put(url: str, entries: Sequence[dict[str, Any]]) -> float:
    """Store the entries; the seconds until all can be found, in the server's one replica too."""
    started = time.perf_counter()
    for at in range(0, len(entries), _BATCH):
        _call(f"{url}/v2/knowledge", {"entries": entries[at : at + _BATCH]}, "PUT")
    while time.perf_counter() - started < _FOUND_WITHIN_S:
        state = _call(f"{url}/v2/knowledge?limit=1")
        replica = _call(f"{url}/v2/models/intent")["knowledge"]
        if not state["waiting"] and replica["revision"] >= state["revision"]:
            return time.perf_counter() - started
        time.sleep(0.5)
    raise SystemExit(f"the entries are not found after {_FOUND_WITHIN_S} s; the server's log says why")


def ask(url: str) -> Iterator[Asked]:
    """Ask every question of the two files."""
    for name in ("paraphrases", "unanswered"):
        for row in _rows(DATA / f"{name}.jsonl"):
            question = {"text": row["text"], "limit": 1, "min_similarity": 0}
            [match] = _call(f"{url}/v2/knowledge/search", question)["matches"]
            kind = row.get("overlap") or row["kind"]
            yield Asked(row.get("id"), row["part"], kind, match["id"], match["similarity"])


def report(asked: Sequence[Asked], served: float) -> tuple[float, float]:
    """Print what was found; the shares found first and unanswered of the half `report`, with the served bound."""
    chosen = bound_for([one for one in asked if one.part == "choose"])
    print(f"bound on the similarity: above {chosen:.4f} by the half `choose`; served: {served:.3f}")
    table = Table("half", "questions", "number", "nearest is right", "and offered", "unanswered")
    shares: dict[tuple[str, bool], float] = {}
    for part in ("choose", "report"):
        for known in (True, False):
            of_part = [one for one in asked if one.part == part and (one.id is not None) == known]
            for kind in ("all", *sorted({one.kind for one in of_part})):
                some = [one for one in of_part if kind in ("all", one.kind)]
                right = sum(one.found == one.id for one in some) / len(some)
                offered = sum(one.found == one.id and one.similarity >= served for one in some) / len(some)
                unanswered = sum(one.similarity < served for one in some) / len(some)
                if kind == "all":
                    shares[part, known] = offered if known else unanswered
                name = "about an entry" if known else "without an entry"
                cells = (f"{right:.1%}", f"{offered:.1%}") if known else ("", "")
                table.add_row(part, f"{name}, {kind}", str(len(some)), *cells, f"{unanswered:.1%}")
    Console(width=110).print(table)
    return shares["report", True], shares["report", False]


def bound_for(asked: Sequence[Asked]) -> float:
    """The smallest bound that leaves the required share of the questions without an entry unanswered.

    Of all such questions, with 95 % confidence: so a lucky half gives no bound that is too low.
    """
    similarities = sorted((one.similarity for one in asked if one.id is None), reverse=True)
    count = len(similarities)
    answered = max(n for n in range(count) if wilson_low(1 - n / count, count) >= MIN_UNANSWERED)
    return similarities[answered]


def wilson_low(share: float, count: int, z: float = 1.96) -> float:
    """The lower end of the 95 % interval of a share of `count`."""
    spread = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (share + z**2 / (2 * count) - spread) / (1 + z**2 / count)


def time_of(port: int, entries: int, rounds: int) -> float:
    """Print the time of `predict` with and without the knowledge base; the milliseconds that it adds, median."""
    texts = [row["text"] for name in ("paraphrases", "unanswered") for row in _rows(DATA / f"{name}.jsonl")]
    texts = random.Random(6).sample(texts, min(rounds, len(texts)))
    connection = HTTPConnection("127.0.0.1", port)
    found: dict[bool, list[float]] = {False: [], True: []}
    for number, text in enumerate(texts[:20] + texts):
        for knowledge in (False, True) if number % 2 else (True, False):
            body = json.dumps({"text": text, "knowledge": knowledge})
            started = time.perf_counter()
            connection.request("POST", _PREDICT, body, {"content-type": "application/json"})
            connection.getresponse().read()
            if number >= 20:
                found[knowledge].append(1000 * (time.perf_counter() - started))
    without, with_ = (statistics.median(found[knowledge]) for knowledge in (False, True))
    print(f"predict, one connection, {entries:,} entries: p50 {without:.2f} ms, asked {with_:.2f} ms", end="; ")
    print(f"added {with_ - without:.2f} ms (bound: {MAX_ADDED_MS:g} ms)")
    return with_ - without


def _call(url: str, body: Any = None, method: str | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


if __name__ == "__main__":
    sys.exit(main())
