"""Measures this machine's in-process limit, Flywheel and its peers in one run.

Each round measures the limit, Flywheel, the limit again, and every peer; every other round has the opposite order. One
server runs at a time. Figures are medians over the rounds. Ratios are taken within a round, because the speed of a
machine drifts. docs/benchmarks.md describes what is measured.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # it is also run as a script

from rich.console import Console

from loadtests import drivers, markdown, plot
from loadtests.homes import home_for
from loadtests.peers import PEERS, PeerError
from loadtests.report import print_report, summarize
from loadtests.rounds import Bench
from loadtests.servers import FLYWHEEL, FLYWHEEL_CACHE
from loadtests.texts import CORPORA, ROOT, default_corpus, load_corpus
from loadtests.workloads import NAMES

PLOT = ROOT / "docs" / "benchmark.svg"
OURS = {FLYWHEEL.name, FLYWHEEL_CACHE.name}
EXAMPLES = """examples:
  make bench                                              everything, about 50 minutes
  make bench ARGS="--peers none --rounds 1 --seconds 3"   Flywheel alone, about 3 minutes
  make bench ARGS="--peers fastapi --scenarios c1,c64"    one peer, two scenarios
  make bench ARGS="--soak-seconds 600 --check"            with the soak; exit 1 when a bound is missed
"""


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended too
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        corpus = load_corpus(options.model)
        bench = Bench(options, options.home or home_for(corpus, console), corpus, console)
    except (PeerError, OSError) as error:
        sys.exit(str(error))
    console.print(f"{len(corpus.truth)} texts from {corpus.title}; load from {drivers.name()}", highlight=False)
    if bench.truth is None:
        console.print(f"no accuracy: the model in {bench.models} does not know their labels", highlight=False)
    bench.install()
    with bench.progress:
        bench.sweep()
        rounds = bench.rounds()
    overload = bench.overload(rounds) if options.overload_seconds else None
    soak = bench.soak(rounds) if options.soak_seconds else None
    report = summarize(rounds, bench.facts(), overload, soak)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2), encoding="utf-8")
    print_report(report, console)
    tables = options.output.with_suffix(".md")
    tables.write_text(markdown.tables(report), encoding="utf-8")
    console.print(f"written to {options.output}, and as Markdown tables to {tables}", highlight=False)
    if options.plot:
        write_plot(report, options.plot, console)
    reached = all(row["met"] for row in report["thresholds"]) and not bench.problems.keys() & OURS
    reached = reached and not (options.everything and report["not_measured"])
    return 1 if options.check and not reached else 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="interleaved rounds (default %(default)s)")
    add("--seconds", type=float, default=5, help="length of each measurement (default %(default)s)")
    add("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)} (default all)")
    add("--scenarios", default="all", help=f"all, or some of {','.join(NAMES)} (default all)")
    add(
        "--model",
        choices=CORPORA,
        default=default_corpus(),
        help="the corpus of the intent model that is served, and whose unseen texts are asked (default %(default)s)",
    )
    add("--home", type=Path, metavar="DIR", help="serve this trained home instead of the one that --model needs")
    add("--overload-seconds", type=float, default=60, help="open-loop overload after the rounds, 0 for none (60)")
    add("--soak-seconds", type=float, default=0, help="steady load after the rounds, 600 is usual (default none)")
    add("--output", type=Path, default=ROOT / "var" / "bench.json", help="all figures (default var/bench.json)")
    add("--plot", type=Path, help="the plot (default docs/benchmark.svg when all peers are measured, else none)")
    add(
        "--check",
        action="store_true",
        help="exit 1 when a bound is missed, or was not measured although everything was to be",
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    options.everything = options.peers == options.scenarios == "all"
    options.peers = _some(options.peers, PEERS, parser)
    options.scenarios = _some(options.scenarios, NAMES, parser)
    options.plot = options.plot or (PLOT if options.everything else None)
    return options


def _some(given: str, known: Sequence[str] | dict[str, Any], parser: argparse.ArgumentParser) -> list[str]:
    chosen = list(known) if given == "all" else [] if given == "none" else given.split(",")
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(known)}")
    return chosen


def write_plot(report: dict[str, Any], file: Path, console: Console) -> None:
    try:
        plot.draw(report, file)
    except ModuleNotFoundError as error:
        console.print(f"no plot: {error.name} is not installed (pip install 'flywheel-serve[train]')", markup=False)
    else:
        console.print(f"plotted to {file}", highlight=False)


if __name__ == "__main__":
    raise SystemExit(main())
