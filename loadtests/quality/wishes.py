"""How many messages with several wishes get all of them, how many with one get a second, and what looking costs.

Messages are asked over HTTP, in the order of these sets:

- choosing: `data/wishes_choosing.jsonl` and the odd lines of `data/clauses.jsonl`. The bounds in
  models/tasks/wishes.py, and the words in clauses.py beside it, were chosen on them.
- reporting: the even lines of `data/clauses.jsonl`, by which nothing was chosen.
- the seed's holdout of single wishes, most of them short.

The cost is counted on Banking77's test part, with the answer cache off: clauses that the encoder reads, over texts that
it reads. With `--check`, a bound that is missed in `reporting` ends with 1: what a support desk would expect of a first
line that sorts messages.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from rich.console import Console
from rich.table import Table

from loadtests.peers import PeerError
from loadtests.servers import flywheel, free_port, texts_by_stage
from loadtests.texts import BANKING77, load_corpus

EXAMPLES = """examples:
  python loadtests/quality/wishes.py                              starts a server on the home's models, under a minute
  python loadtests/quality/wishes.py --check                      the same, and exit 1 when a bound is missed
  python loadtests/quality/wishes.py --url http://127.0.0.1:8000  asks a running one, and counts no cost
"""
DATA = Path(__file__).resolve().parent / "data"
MIN_FOUND, MAX_FALSE = 0.7, 0.1
BATCH = 64
MIN_OVERLAP = 0.5
"""of a clause with the one marked in the data, as a share of both together"""


@dataclass(frozen=True)
class Message:
    text: str
    wishes: list[dict[str, Any]]
    """label and, of several, mostly `start` and `end`"""

    @property
    def labels(self) -> set[str]:
        return {wish["label"] for wish in self.wishes}


@dataclass(frozen=True)
class Found:
    """Counts of messages."""

    several: int
    all_found: int
    exact: int
    clauses: int
    overlapping: int
    single: int
    false: int


def main() -> int:
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else 140)
    sets = message_sets()
    try:
        with server(options.url) as url:
            found = {name: measure(url, messages) for name, messages in sets.items()}
            show(found, console)
            if options.url is None:
                show_cost(url, console)
    except PeerError as error:
        console.print(str(error), markup=False)
        return 2
    missed = shortfalls(found["reporting"])
    for line in missed:
        console.print(line, highlight=False)
    return 1 if options.check and missed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="of a running server; default: one is started")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bound is missed")
    return parser.parse_args()


@contextmanager
def server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url.rstrip("/")
        return
    port = free_port()
    with flywheel(port, {"FLYWHEEL_CACHE__TEXTS": "0", "FLYWHEEL_TASKS__INTENT__REPLICAS": "1"}):
        yield f"http://127.0.0.1:{port}"


def message_sets() -> dict[str, list[Message]]:
    clauses = messages_of(DATA / "clauses.jsonl")
    holdout = load_corpus("seed").truth
    return {
        "choosing": [*messages_of(DATA / "wishes_choosing.jsonl"), *clauses[0::2]],
        "reporting": clauses[1::2],
        "seed holdout": [Message(text, [{"label": label}]) for text, label in holdout.items()],
    }


def messages_of(file: Path) -> list[Message]:
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [Message(row["text"], row["intents"]) for row in rows]


def measure(url: str, messages: Sequence[Message]) -> Found:
    answers = predict(url, [message.text for message in messages])
    several = all_found = exact = clauses = overlapping = single = false = 0
    for message, answer in zip(messages, answers, strict=True):
        intents = answer.get("intents", [])
        labels = {intent["label"] for intent in intents}
        if len(message.labels) == 1:
            single += 1
            false += bool(intents)
            continue
        several += 1
        all_found += labels >= message.labels
        exact += labels == message.labels
        marked = {wish["label"]: wish for wish in message.wishes if "start" in wish}
        for intent in intents:
            if intent["label"] in marked:
                clauses += 1
                overlapping += overlap(intent, marked[intent["label"]]) >= MIN_OVERLAP
    return Found(several, all_found, exact, clauses, overlapping, single, false)


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    both = min(one["end"], other["end"]) - max(one["start"], other["start"])
    return max(0.0, both / (max(one["end"], other["end"]) - min(one["start"], other["start"])))


def predict(url: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    for first in range(0, len(texts), BATCH):
        body = json.dumps({"texts": texts[first : first + BATCH]}).encode()
        request = urllib.request.Request(f"{url}/v2/models/intent/predict", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answers += json.loads(response.read())["predictions"]
    return answers


def show(found: dict[str, Found], console: Console) -> None:
    table = Table(title="Several wishes in one message")
    columns = ("", "several", "all found", "exactly these", "clauses half right", "single", "false second wish")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for name, one in found.items():
        table.add_row(
            name, str(one.several), share(one.all_found, one.several), share(one.exact, one.several),
            share(one.overlapping, one.clauses), str(one.single), share(one.false, one.single),
        )  # fmt: skip
    console.print(table)


def show_cost(url: str, console: Console) -> None:
    if not (BANKING77 / "test.csv").is_file():
        console.print(f"the cost is left out: {BANKING77} is missing", highlight=False)
        return
    texts = load_corpus("banking77").texts
    before, ran = texts_by_stage(url), rows_run(url)
    answers = predict(url, texts)
    read = texts_by_stage(url)["encoder"] - before["encoder"]
    clauses = rows_run(url) - ran - read
    several = sum("intents" in answer for answer in answers)
    console.print(
        f"Banking77: the encoder read {clauses} clauses beside {read} of {len(texts)} texts, {clauses / read:.1%} more "
        f"rows; {several / len(texts):.1%} of the texts got several wishes",
        highlight=False,
    )


def rows_run(url: str) -> int:
    """How many rows the intent encoder has run, in all replicas."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        lines = response.read().decode()
    found = re.findall(r'^flywheel_batch_size_sum\{[^}]*task="intent"[^}]*\} (\S+)$', lines, re.M)
    return int(sum(map(float, found)))


def shortfalls(found: Found) -> list[str]:
    missed = []
    if found.all_found < MIN_FOUND * found.several:
        missed.append(
            f"all wishes were found in {share(found.all_found, found.several)}; a desk expects {MIN_FOUND:.0%}"
        )
    if found.false > MAX_FALSE * found.single:
        missed.append(f"a false second wish in {share(found.false, found.single)}; a desk accepts {MAX_FALSE:.0%}")
    return missed


def share(count: int, of: int) -> str:
    return f"{count / of:.1%} ({count})" if of else "-"


if __name__ == "__main__":
    raise SystemExit(main())
