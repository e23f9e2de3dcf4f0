"""Recall and false hits of the entities' engine by type, on labelled texts of customers; beside it Presidio's.

Two sets: `data/entities.jsonl` (order numbers, amounts, dates, ...; tuned on its part "choose", reported on "report")
and the sentences with personal data of the unit tests. An entity is found if something of its type overlaps it, and
exact if the place is the same; a false hit overlaps nothing of its type. Presidio runs in a Python of its own, as its
packages are none of Flywheel's: without a language model, its pattern recognizers alone.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from rich.console import Console
from rich.table import Table

from models.entities import engine_of, read_registry

HERE = Path(__file__).resolve().parent
CORPORA = HERE.parent.parent / "tests" / "unit" / "models" / "feedback" / "pii"
MIN_RECALL = 0.85  # of each type with at least ten labels
MIN_RECALL_OF_ALL = 0.92
MAX_FALSE = 0.05  # false hits, of all that is found
MAX_US = 300.0  # a text
EXAMPLES = """examples:
  python loadtests/quality/entities.py                                  the engine alone; some seconds
  python loadtests/quality/entities.py --check                          exit with 1 below the bounds
  python loadtests/quality/entities.py --presidio /opt/pii/bin/python   with Presidio, of an environment of its own:
      python -m venv /opt/pii && /opt/pii/bin/pip install presidio-analyzer==2.2.366
  python loadtests/quality/entities.py --part choose --misses           what is missed, to improve the engine
"""
_MARK = re.compile(r"⟦(\w+)\|(.*?)⟧")
_ROUNDS = 5


class Span(NamedTuple):
    type: str
    start: int
    end: int
    value: str | None = None


class Labelled(NamedTuple):
    text: str
    spans: list[Span]


class Score(NamedTuple):
    labelled: Counter[str]
    found: Counter[str]
    exact: Counter[str]
    right_value: Counter[str]
    false: Counter[str]
    us: float
    """microseconds a text"""
    mb: float
    """resident memory of the process at its highest"""
    misses: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", default="report", choices=("choose", "report"))
    parser.add_argument("--presidio", metavar="PYTHON", help="a Python with presidio-analyzer")
    parser.add_argument("--misses", action="store_true", help="print what is missed, and false hits")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bound is missed")
    options = parser.parse_args()
    console = Console()
    sets = {
        f"entities.jsonl, part {options.part}": list(entities(options.part)),
        "sentences with personal data": [case for file in sorted(CORPORA.glob("*.txt")) for case in sentences(file)],
    }
    faults: list[str] = []
    for name, cases in sets.items():
        personal = name.startswith("sentences")
        ours = scored(cases, *engine(cases, personal=personal))
        presidio = scored(cases, *run_presidio(cases, options.presidio)) if options.presidio else None
        show(console, name, ours, presidio, values=not personal)
        if options.misses:
            print("\n".join(ours.misses))
        if not personal:
            faults = list(missed_bounds(ours))
    for fault in faults:
        print(fault)
    return int(options.check and bool(faults))


def entities(part: str) -> Iterator[Labelled]:
    for line in (HERE / "data" / "entities.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["part"] == part:
            spans = [Span(one["type"], one["start"], one["end"], one["normal"]) for one in row["entities"]]
            yield Labelled(row["text"], spans)


def sentences(file: Path) -> Iterator[Labelled]:
    """Of a file with marks such as `write to ⟦email|a@b.example⟧`."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#") or re.fullmatch(r"\[\w+\]", line):
            continue
        text, spans, at = "", list[Span](), 0
        for mark in _MARK.finditer(line):
            text += line[at : mark.start()]
            spans.append(Span(mark[1], len(text), len(text) + len(mark[2])))
            text, at = text + mark[2], mark.end()
        yield Labelled(text + line[at:], spans)


Found = tuple[list[list[Span]], float, float]
"""spans of each text, microseconds a text, MB"""


def engine(cases: Sequence[Labelled], *, personal: bool) -> Found:
    """The engine, with the products of the set as a deployment would name them."""
    with tempfile.TemporaryDirectory() as folder:
        products = HERE / "data" / "products.txt"
        file = Path(folder) / "entities.yaml"
        file.write_text(f"types: {{product: {{words: {json.dumps(str(products))}}}}}", encoding="utf-8")
        found = engine_of(read_registry(file))

    def spans(text: str) -> list[Span]:
        if personal:
            return [Span(one.kind, one.start, one.end) for one in found.personal(text)]
        return [Span(one.type, one.start, one.end, one.value) for one in found.entities(text)]

    return timed(spans, [case.text for case in cases])


def timed(spans: Callable[[str], list[Span]], texts: Sequence[str]) -> Found:
    answers = [spans(text) for text in texts]
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.process_time()
        for text in texts:
            spans(text)
        best = min(best, time.process_time() - begun)
    return answers, best / len(texts) * 1e6, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_presidio(cases: Sequence[Labelled], python: str) -> Found:
    # It knows that addresses in `.example` cannot exist; `.company` is a domain and as long.
    texts = json.dumps([re.sub(r"\.example\b", ".company", case.text, flags=re.I) for case in cases])
    run = subprocess.run(
        [python, str(HERE / "presidio_spans.py")], input=texts, stdout=subprocess.PIPE, text=True, check=True
    )
    answer = json.loads(run.stdout)
    return [[Span(*span) for span in spans] for spans in answer["spans"]], answer["us"], answer["mb"]


def scored(cases: Sequence[Labelled], answers: list[list[Span]], us: float, mb: float) -> Score:
    score = Score(Counter(), Counter(), Counter(), Counter(), Counter(), us, mb, [])
    for case, spans in zip(cases, answers, strict=True):
        places = {(span.type, span.start, span.end): span.value for span in spans}
        for label in case.spans:
            score.labelled[label.type] += 1
            place = label.type, label.start, label.end
            if place in places:
                score.exact[label.type] += 1
                score.right_value[label.type] += places[place] == label.value
            if any(overlap(label, span) for span in spans):
                score.found[label.type] += 1
            if place not in places or places[place] != label.value:
                score.misses.append(f"missed {label.type} {case.text[label.start : label.end]!r} in {case.text!r}")
        for span in spans:
            if not any(overlap(span, label) for label in case.spans):
                score.false[span.type] += 1
                score.misses.append(f"false  {span.type} {case.text[span.start : span.end]!r} in {case.text!r}")
    return score


def overlap(one: Span, other: Span) -> bool:
    return one.type == other.type and one.start < other.end and other.start < one.end


def show(console: Console, name: str, ours: Score, presidio: Score | None, *, values: bool) -> None:
    table = Table(title=name, title_justify="left")
    columns = ["type", "labelled", "found", "exact", *(["value"] if values else []), "false hits"]
    columns += ["Presidio: found", "exact", "false hits"] if presidio else []
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right")
    for kind in sorted(ours.labelled | ours.false):
        row = [kind, str(ours.labelled[kind]), share(ours.found, ours, kind), share(ours.exact, ours, kind)]
        row += [share(ours.right_value, ours, kind)] if values else []
        row.append(str(ours.false[kind]))
        if presidio:
            row += [share(presidio.found, ours, kind), share(presidio.exact, ours, kind), str(presidio.false[kind])]
        table.add_row(*row)
    console.print(table)
    console.print(f"{ours.us:.0f} us a text, {ours.mb:.0f} MB at most")
    if presidio:
        others = {kind: count for kind, count in sorted(presidio.false.items()) if kind not in ours.labelled}
        console.print(f"Presidio: {presidio.us:.0f} us a text, {presidio.mb:.0f} MB at most; of other types: {others}")


def share(count: Counter[str], of: Score, kind: str) -> str:
    return f"{count[kind] / of.labelled[kind]:.3f}" if of.labelled[kind] else ""


def missed_bounds(score: Score) -> Iterator[str]:
    for kind, labels in score.labelled.items():
        recall = score.exact[kind] / labels
        if labels >= 10 and recall < MIN_RECALL:
            yield f"{kind}: recall {recall:.3f} (bound: {MIN_RECALL})"
    recall = score.right_value.total() / score.labelled.total()
    if recall < MIN_RECALL_OF_ALL:
        yield f"exact with the right value: {recall:.3f} (bound: {MIN_RECALL_OF_ALL})"
    false = score.false.total() / max(1, score.false.total() + score.found.total())
    if false > MAX_FALSE:
        yield f"false hits: {false:.3f} of what is found (bound: {MAX_FALSE})"
    if score.us > MAX_US:
        yield f"{score.us:.0f} us a text (bound: {MAX_US:g})"


if __name__ == "__main__":
    sys.exit(main())
