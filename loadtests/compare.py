"""Compares two checkouts of Flywheel, or two configurations of one, on one machine.

Each round starts both, one after the other, on copies of the same trained home and with the answer cache off; every
other round has the opposite order. Figures are medians over the rounds. Ratios are new over old and taken within a
round, because the speed of a machine drifts. Each checkout runs from its own .venv. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # it is also run as a script

from rich.console import Console
from rich.table import Table

from loadtests import drivers, machine
from loadtests.peers import PeerError
from loadtests.rounds import FAILURES, START_S, Steps, load_s, measure
from loadtests.servers import FLYWHEEL, champion_bundle, copied, free_port, home, memory_mb, up
from loadtests.texts import ROOT, corpus_of, seed_texts
from loadtests.workloads import MANY, NAMES, Scenario, Scenarios

SCENARIOS = ("c1", "c64", "batch32")
# The bounds of --check. Chosen, not measured: on a busy machine the median of few rounds may miss them by chance.
MIN_C64_RATIO, MAX_C1_RATIO = 0.97, 1.05
FIGURES = {  # key -> title and format
    "c1": (f"{NAMES['c1']}: p50, ms", ".2f"),
    "c64": (f"{NAMES['c64']}: requests/s", ".0f"),
    "batch32": (f"{NAMES['batch32']}: texts/s", ".0f"),
    "pss_mb": ("memory, MB (PSS)", ".0f"),
    "rss_mb": ("memory, MB (RSS)", ".0f"),
    "ready_s": ("seconds to ready", ".1f"),
}
EXAMPLES = """examples:
  git worktree add /tmp/old main && make -C /tmp/old .venv/.serve
  python loadtests/compare.py /tmp/old                  /tmp/old against this checkout, about 6 minutes
  python loadtests/compare.py /tmp/old --check          exit 1 when this checkout is slower
  python loadtests/compare.py . --environment-new FLYWHEEL_BATCHING__MAX_LENGTH_RATIO=1.2
                                                        this checkout against itself, configured otherwise
  python loadtests/topics_file.py > t.yaml
  python loadtests/compare.py . --task sentiment --environment-new FLYWHEEL_TASKS__SENTIMENT__OPTIONS__TOPICS=t.yaml
                                                        topics of 2,000 words against none
"""
# Prints where the checkout's interpreter finds the package `serve`; run with -P, so not in the current folder.
_WHERE = "import importlib.util as u; s = u.find_spec('serve'); print(s.origin if s else '')"

Figures = dict[str, float]  # by FIGURES' keys; and `errors`: failed requests
ComparedRound = dict[str, Figures]  # by "old" and "new"; without a side that failed


@dataclass(frozen=True)
class Side:
    """One of the two checkouts."""

    name: str  # "old" or "new"
    checkout: Path
    environment: dict[str, str]

    @property
    def command(self) -> Path:
        return self.checkout / ".venv" / "bin" / "flywheel"

    def describe(self) -> str:
        git = ["git", "-C", str(self.checkout), "describe", "--always", "--dirty"]
        done = subprocess.run(git, capture_output=True, text=True)
        settings = [f"{key}={value}" for key, value in self.environment.items()]
        return " ".join([f"{self.name}: {self.checkout}", f"({done.stdout.strip() or 'no commit'})", *settings])


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended too
    console = Console(width=None if sys.stdout.isatty() else 140)
    sides = [
        Side("old", options.old.resolve(), dict(options.environment_old)),
        Side("new", options.new.resolve(), dict(options.environment_new)),
    ]
    try:
        for side in sides:
            check_installed(side)
        bundle = champion_bundle(options.home)
    except PeerError as error:
        sys.exit(str(error))
    texts, source = asked(options.task, bundle)
    for line in (*(side.describe() for side in sides), f"{machine.describe()}; model: {machine.model(bundle)}",
                 f"{len(texts)} texts from {source}; load from {drivers.name()}"):  # fmt: skip
        console.print(line, highlight=False, markup=False)
    server = replace(FLYWHEEL, path=f"/v2/models/{options.task}/predict")
    rounds = measure_all(sides, Scenarios(texts, bundle).of(server, SCENARIOS), options, console)
    console.print(table(rounds))
    if not options.check:
        return 0 if any(ratios(rounds, key) for key in FIGURES) else 1
    problems = missed(rounds)
    for problem in problems:
        console.print(f"MISSED: {problem}", highlight=False, markup=False)
    return 1 if problems else 0


def asked(task: str, bundle: Path) -> tuple[list[str], str]:
    """The texts to ask, and the name of their source. `bundle` is the intent champion's."""
    if task == "intent":
        corpus = corpus_of(bundle)
        return corpus.texts, corpus.title
    return seed_texts(task), f"the seed holdout of {task}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("old", type=Path, metavar="OLD_CHECKOUT", help="a checkout with its own .venv")
    add(
        "--new", type=Path, default=ROOT, metavar="CHECKOUT", help="the checkout to compare with it (default: this one)"
    )
    add("--rounds", type=int, default=5, help="rounds, each of both checkouts (default %(default)s)")
    add("--seconds", type=float, default=4, help="length of each measurement (default %(default)s)")
    add("--home", type=Path, default=home(), metavar="DIR",
        help="trained home, copied for both, which must load its bundles (default: FLYWHEEL_HOME or var)")  # fmt: skip
    add("--task", choices=("intent", "sentiment"), default="intent", help="what is asked (default %(default)s)")
    for name in ("old", "new"):
        add(f"--environment-{name}", type=_setting, action="append", default=[], metavar="KEY=VALUE",
            help=f"environment of the {name} checkout's server; may be repeated")  # fmt: skip
    add("--check", action="store_true",
        help=f"exit 1 when the new one has less than {MIN_C64_RATIO:g} of the throughput at c=64 or more than "
        f"{MAX_C1_RATIO:g} of the latency at c=1, failed a request, or was not measured in a round")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    return options


def _setting(given: str) -> tuple[str, str]:
    key, equals, value = given.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{given!r} is not KEY=VALUE")
    return key, value


def check_installed(side: Side) -> None:
    """Raises PeerError unless the checkout has a .venv that runs this checkout's code."""
    if not (side.checkout / "pyproject.toml").is_file():
        raise PeerError(f"There is no checkout at {side.checkout}.")
    if not side.command.is_file():
        raise PeerError(f"{side.checkout} has no .venv. Run there: make .venv/.serve")
    python = [str(side.command.with_name("python")), "-P", "-c", _WHERE]
    done = subprocess.run(python, cwd=side.checkout, capture_output=True, text=True)
    found = done.stdout.strip()
    if not found or Path(found).resolve().parent.parent != side.checkout:
        raise PeerError(
            f"The .venv of {side.checkout} runs the code of {found or 'no checkout'}. Remove it, and run there: "
            "make .venv/.serve"
        )


def measure_all(
    sides: Sequence[Side], scenarios: Sequence[Scenario], options: argparse.Namespace, console: Console
) -> list[ComparedRound]:
    """Run all rounds; the first and every other start with the old side. A side that fails is reported and left out."""
    turn_s = START_S + sum(load_s(options.seconds, scenario.warm_s) for scenario in scenarios)
    steps = Steps(console, options.rounds * len(sides) * turn_s)
    rounds: list[ComparedRound] = []
    with steps.progress:
        for number in range(1, options.rounds + 1):
            r: ComparedRound = {}
            for side in sides[:: 1 if number % 2 else -1]:
                try:
                    r[side.name] = _turn(side, scenarios, options, steps, f"round {number}: {side.name}")
                except FAILURES as error:
                    console.print(f"round {number}: {side.name}: {error}", highlight=False, markup=False)
            rounds.append(r)
    return rounds


def _turn(side: Side, scenarios: Sequence[Scenario], options: argparse.Namespace, steps: Steps, what: str) -> Figures:
    """Start one server, measure it and end it. Raises one of FAILURES."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        with steps.step(f"{what}: start", START_S):
            own = stack.enter_context(copied(options.home))
            environment = {"FLYWHEEL_CACHE__TEXTS": "0", **side.environment, "FLYWHEEL_HOME": str(own)}
            began = time.monotonic()
            process = stack.enter_context(up(side.command, side.checkout, port, environment))
            ready_s = time.monotonic() - began
        loads = {}
        for scenario in scenarios:
            with steps.step(f"{what}: {scenario.title}", load_s(options.seconds, scenario.warm_s)):
                loads[scenario.name] = measure(url, scenario, options.seconds)
        return figures(loads, memory_mb(process.pid), ready_s)


def figures(loads: dict[str, dict[str, Any]], memory: dict[str, float], ready_s: float) -> Figures:
    """Figures of one turn: `c1` in ms, `c64` in requests/s, `batch32` in texts/s, memory in MB, `ready_s`, `errors`."""
    return {
        "c1": loads["c1"]["p50_ms"],
        "c64": loads["c64"]["rps"],
        "batch32": loads["batch32"]["rps"] * MANY,
        **memory,
        "ready_s": ready_s,
        "errors": sum(load["errors"] for load in loads.values()),
    }


def ratios(rounds: Sequence[ComparedRound], key: str) -> list[float]:
    """New over old in each round that has both; rounds whose old figure is 0 are left out."""
    both = [(r["old"][key], r["new"][key]) for r in rounds if r.keys() >= {"old", "new"}]
    return [new / old for old, new in both if old]


def missed(rounds: Sequence[ComparedRound]) -> list[str]:
    """A sentence for each bound of --check that is missed. The bounds apply to the median ratio."""
    problems = []
    for key, sign, bound in (("c64", "<", MIN_C64_RATIO), ("c1", ">", MAX_C1_RATIO)):
        title, found = FIGURES[key][0], ratios(rounds, key)
        middle = statistics.median(found) if found else None
        if middle is None:
            problems.append(f"{title}: not measured")
        elif middle < bound if sign == "<" else middle > bound:
            problems.append(f"{title}: new/old is {middle:.3f}, {sign} {bound:g}")
    if errors := _errors(rounds, "new"):
        problems.append(f"new: {errors:g} failed requests")
    if absent := sum("new" not in r for r in rounds):
        problems.append(f"new: not measured in {absent} of {len(rounds)} rounds")
    return problems


def _errors(rounds: Sequence[ComparedRound], side: str) -> float:
    return sum(r[side]["errors"] for r in rounds if side in r)


def table(rounds: Sequence[ComparedRound]) -> Table:
    shown = Table(title=f"medians of {len(rounds)} rounds; ratios within each round")
    shown.add_column("", no_wrap=True)
    for column in ("old", "new", "new/old", "min-max"):
        shown.add_column(column, justify="right", no_wrap=True)
    for key, (title, form) in FIGURES.items():
        cells = []
        for side in ("old", "new"):
            values = [r[side][key] for r in rounds if side in r]
            cells.append(format(statistics.median(values), form) if values else "")
        found = ratios(rounds, key)
        spread = [f"{statistics.median(found):.3f}", f"{min(found):.3f}-{max(found):.3f}"] if found else []
        shown.add_row(title, *cells, *spread)
    shown.add_row("failed requests, all rounds", *(f"{_errors(rounds, side):g}" for side in ("old", "new")))
    return shown


if __name__ == "__main__":
    raise SystemExit(main())
