"""What a sentiment model does when a text changes, after CheckList (Ribeiro et al., 2020, ACL, "Beyond Accuracy").

Invariance: another company or ticker, another month or day, another number of the same sense must keep the label.
Direction: a change that turns the sense, such as a negated verb or "less than feared", must change the label to that of
docs/labelling.md. The texts are in `sentiment/` beside this file, written by hand; companies and people are invented.
They are for testing only: a model that was trained on them, or chosen by them, is not tested by them.

`invariance.csv` has slots, {company:One|Another|A third}, of the kinds company, month and number. A text is asked with
the first of each, and then, kind by kind, with the others; several slots of a kind change together. `direction.csv` has
a text before and after the change, with both labels. A pair counts as found if the answer changes to the right label.

A server of its own is started on a copy of the trained models (FLYWHEEL_HOME, or var/), unless --url names one; that
one's prediction log and opinion trends then have these texts. With --check, a missed bound ends with 1.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from rich.console import Console
from rich.table import Table

from loadtests.peers import PeerError
from loadtests.quality.served import ask, served
from loadtests.servers import home

DATA = Path(__file__).parent / "sentiment"
KINDS = ("company", "month", "number")
MAX_CHANGED = 0.02
"""of the pairs of each kind whose label must stay"""
MIN_FOUND = 0.8
"""of all pairs whose label must change"""
EXAMPLES = """examples:
  make behaviour                                                        the default model, --check, in about a minute
  python loadtests/quality/behaviour.py --check --failures              exit with 1 if a bound is missed; all failures
  FLYWHEEL_HOME=/srv/other python loadtests/quality/behaviour.py        the models of another home
  python loadtests/quality/behaviour.py --url http://127.0.0.1:8000     a running server
"""
_SLOT = re.compile(r"\{(\w+):([^{}]*)\}")
_SHOWN = 2  # failures of each kind, without --failures


@dataclass(frozen=True)
class Pair:
    """Two texts, with the labels that the guide gives them; the same label where the change must not matter."""

    kind: str
    before: str
    after: str
    before_label: str
    after_label: str

    def passed(self, labels: Mapping[str, str]) -> bool:
        """Whether the answers, by text, are the same where they must be, or change to the label after the change."""
        changed = labels[self.before] != labels[self.after]
        if self.before_label == self.after_label:
            return not changed
        return changed and labels[self.after] == self.after_label


def main() -> int:
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    stay, turn = invariance(DATA / "invariance.csv"), direction(DATA / "direction.csv")
    texts = list(dict.fromkeys(text for pair in (*stay, *turn) for text in (pair.before, pair.after)))
    try:
        if options.url:
            labels = asked(options.url.rstrip("/"), options.task, texts, console)
        else:
            with served(home(), [options.task], console) as url:
                labels = asked(url, options.task, texts, console)
    except (PeerError, urllib.error.URLError) as error:
        console.print(f"{options.url or 'flywheel up'}: {error}", markup=False)
        return 1
    missed = [*show_invariance(stay, labels, console), *show_direction(turn, labels, console)]
    show_failures((*stay, *turn), labels, None if options.failures else _SHOWN, console)
    for sentence in missed:
        console.print(f"missed: {sentence}")
    return 1 if options.check and missed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    parser.add_argument("--failures", action="store_true", help="print every pair that failed, not a few of each kind")
    parser.add_argument("--task", default="sentiment", help="a task with the labels of sentiment (%(default)s)")
    parser.add_argument("--url", help="a running server; the default is one of its own")
    return parser.parse_args()


def invariance(file: Path) -> list[Pair]:
    """For each text and kind, the text with the first filling beside the text with each other one of that kind."""
    return [
        Pair(kind, filled(row["text"]), filled(row["text"], kind, at), row["label"], row["label"])
        for row in rows(file)
        for kind in KINDS
        for at in range(1, fillings(row["text"], kind))
    ]


def direction(file: Path) -> list[Pair]:
    return [Pair(**row) for row in rows(file)]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened, strict=True))


def fillings(text: str, kind: str) -> int:
    """How many fillings the slots of `kind` have; 0 without such a slot. Raises ValueError if they have unlike many."""
    counts = {len(slot[2].split("|")) for slot in _SLOT.finditer(text) if slot[1] == kind}
    if len(counts) > 1:
        raise ValueError(f"slots of one kind change together and need as many fillings each: {text}")
    return counts.pop() if counts else 0


def filled(text: str, kind: str = "", at: int = 0) -> str:
    """The text with filling number `at` in the slots of `kind`, and the first filling in all others."""
    return _SLOT.sub(lambda slot: slot[2].split("|")[at if slot[1] == kind else 0], text)


def asked(url: str, task: str, texts: Sequence[str], console: Console) -> dict[str, str]:
    """The label of each text. Exits when a request keeps failing."""
    predictions = ask(url, task, texts, console)
    return {text: prediction["label"] for text, prediction in zip(texts, predictions, strict=True)}


def show_invariance(pairs: Sequence[Pair], labels: Mapping[str, str], console: Console) -> list[str]:
    """Print the changed labels by kind. Returns the missed bounds, as sentences."""
    table = _table("Labels that must stay", "another", "pairs", "changed", "share", "bound", "as the guide")
    missed = []
    for kind in KINDS:
        own = [pair for pair in pairs if pair.kind == kind]
        changed = sum(not pair.passed(labels) for pair in own)
        share = changed / len(own)
        right = _share([labels[text] == label for text, label in {one.before: one.before_label for one in own}.items()])
        table.add_row(kind, str(len(own)), str(changed), f"{share:.1%}", f"<= {MAX_CHANGED:.0%}", right)
        if share > MAX_CHANGED:
            missed.append(
                f"another {kind} changed {changed} of {len(own)} labels, {share:.1%}; the bound is {MAX_CHANGED:.0%}"
            )
    console.print(table)
    return missed


def show_direction(pairs: Sequence[Pair], labels: Mapping[str, str], console: Console) -> list[str]:
    """Print how many labels change to what they should, by kind. Returns the missed bounds, as sentences."""
    table = _table("Labels that must change", "by", "pairs", "changed as they should", "share", "bound", "right before")
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        table.add_row(kind, *_found([pair for pair in pairs if pair.kind == kind], labels))
    table.add_section()
    table.add_row("all", *_found(pairs, labels, f">= {MIN_FOUND:.0%}"))
    console.print(table)
    found = sum(pair.passed(labels) for pair in pairs)
    if found >= MIN_FOUND * len(pairs):
        return []
    share = f"{found} of {len(pairs)}, {found / len(pairs):.1%}"
    return [f"{share}, of the labels that must change did; the bound is {MIN_FOUND:.0%}"]


def _found(pairs: Sequence[Pair], labels: Mapping[str, str], bound: str = "") -> list[str]:
    passed = [pair.passed(labels) for pair in pairs]
    right = _share([labels[pair.before] == pair.before_label for pair in pairs])
    return [str(len(pairs)), str(sum(passed)), _share(passed), bound, right]


def show_failures(pairs: Sequence[Pair], labels: Mapping[str, str], most: int | None, console: Console) -> None:
    """Print the pairs that failed, at most so many of each kind, with the answers and what they should be."""
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        failed = [pair for pair in pairs if pair.kind == kind and not pair.passed(labels)]
        for number, pair in enumerate(failed[:most]):
            if not number:
                console.print(f"\n{kind}: {len(failed)} failed", style="bold")
            for text, label in ((pair.before, pair.before_label), (pair.after, pair.after_label)):
                given = labels[text]
                said = given if given == label else f"{given}, by the guide {label}"
                console.print(f"  {text}  [{said}]", markup=False, soft_wrap=True)
            console.print()


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _share(passed: Sequence[bool]) -> str:
    return f"{sum(passed) / len(passed):.1%}"


if __name__ == "__main__":
    raise SystemExit(main())
