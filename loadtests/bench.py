"""This machine's limit, Flywheel and its peers, measured in one run.

Rounds are interleaved: each measures the in-process limit, Flywheel, the limit again, and every peer, one server at a
time, started for its turn and ended after it. Figures are medians over the rounds; ratios are taken within a round,
since the speed of a machine drifts. docs/benchmarks.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a script, too

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests import drivers, limit, machine, open_loop, plot
from loadtests.peers import PEERS, Peer, PeerError, prepare
from loadtests.report import Round, print_report, summarize, within
from loadtests.servers import (
    FLYWHEEL,
    FLYWHEEL_CACHE,
    champion_bundle,
    labels_alone,
    labels_under_load,
    memory_mb,
    running,
)
from loadtests.texts import ROOT, load_texts
from loadtests.workloads import NAMES, Scenario, Scenarios

PLOT = ROOT / "docs" / "benchmark.svg"
OURS = {FLYWHEEL.name, FLYWHEEL_CACHE.name}
TARGET_S = float(os.environ.get("FLYWHEEL_LIMITS__WAIT_S", "1.0"))  # as in flywheel.yaml
WARM_S, DRAIN_S, SWEEP_S, START_S = 1.0, 0.5, 1.0, 15.0
# Whatever a server or a load generator may do wrong: what other turns measured is kept.
_FAILURES = (PeerError, drivers.LoadError, OSError, HTTPException, ValueError, LookupError)
EXAMPLES = """examples:
  make bench                                              everything, about 20 minutes
  make bench ARGS="--peers none --rounds 1 --seconds 3"   Flywheel alone, about 3 minutes
  make bench ARGS="--peers fastapi --scenarios c1,c64"    one peer, two scenarios
  make bench ARGS="--soak-seconds 600 --check"            with the soak; exit 1 when a bound is missed
"""


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with it
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        bundle = champion_bundle()
    except PeerError as error:
        sys.exit(str(error))
    texts, source = load_texts()
    console.print(f"{len(texts)} texts from {source}; load from {drivers.name()}", highlight=False)
    bench = Bench(options, bundle, texts, console)
    bench.install()
    with bench.progress:
        bench.sweep()
        rounds = [bench.round(number) for number in range(1, options.rounds + 1)]
    overload = bench.overload(rounds) if options.overload_seconds else None
    soak = bench.soak(rounds) if options.soak_seconds else None
    report = summarize(rounds, bench.facts(source), overload, soak)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2), encoding="utf-8")
    print_report(report, console)
    console.print(f"written to {options.output}", highlight=False)
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
    add("--rounds", type=int, default=3, help="interleaved rounds (default %(default)s)")
    add("--seconds", type=float, default=5, help="length of each measurement (default %(default)s)")
    add("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)} (default all)")
    add("--scenarios", default="all", help=f"all, or some of {','.join(NAMES)} (default all)")
    add("--overload-seconds", type=float, default=60, help="open-loop overload after the rounds, 0 for none (60)")
    add("--soak-seconds", type=float, default=0, help="steady load after the rounds, 600 is usual (default none)")
    add("--output", type=Path, default=ROOT / "var" / "bench.json", help="all figures (default var/bench.json)")
    add("--plot", type=Path, help="the plot (default docs/benchmark.svg when all peers are measured, else none)")
    add("--check", action="store_true", help="exit 1 when a bound is missed")
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


class Bench:
    """One run: what is sent, which servers take part, and how far it is."""

    def __init__(self, options: argparse.Namespace, bundle: Path, texts: list[str], console: Console):
        self.options, self.bundle, self.texts, self.console = options, bundle, texts, console
        self.scenarios = Scenarios(texts, bundle)
        self.problems: dict[str, str] = {}  # a peer's name -> what went wrong with it
        self._absent: set[str] = set()
        self._alone: dict[str, dict[str, str]] = {}
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar = self.progress.add_task("", total=self._expected_s())

    def install(self) -> None:
        """The peers' environments; a peer that cannot be installed is left out, and the report says so."""
        for name in self.options.peers:
            try:
                prepare(PEERS[name])
            except PeerError as error:
                self.problems[name] = str(error)
                self._absent.add(name)

    def sweep(self) -> None:
        """Which division of the machine is its limit; the rounds measure that one."""
        with self._step("in-process limit: best setting", self._sweep_s()):
            found = limit.sweep(self.bundle, self.texts, SWEEP_S)
        for setting, rps in found.items():
            self.console.print(f"  {rps:6.0f} texts/s  {setting}", highlight=False)
        self.swept = {str(setting): rps for setting, rps in found.items()}
        self.setting = next(iter(found))

    def round(self, number: int) -> Round:
        """The limit on both sides of Flywheel, then the peers."""
        r: Round = {"servers": {}, "memory": {}, "labels": {}}
        before = self._limit(number)
        self._server(FLYWHEEL, r, number)
        after = self._limit(number)
        r["limit_rps"], r["limit_batch1_ms"] = ((a + b) / 2 for a, b in zip(before, after, strict=True))
        r["limit_drift"] = max(before[0], after[0]) / min(before[0], after[0])
        for server in self._others():
            self._server(server, r, number)
        return r

    def overload(self, rounds: Sequence[Round]) -> dict[str, Any] | None:
        """Three times what 64 connections got, arriving at random. None when those were not measured."""
        capacity = within(rounds, lambda r: float(r["servers"]["flywheel"]["c64"]["rps"]))
        if not capacity:
            return None
        seconds = self.options.overload_seconds
        self.console.print(f"overload for {seconds:g} s", highlight=False)
        try:
            with running(FLYWHEEL, self.bundle) as (url, _):
                self._warm_up(url)
                return open_loop.overload(url, statistics.median(capacity), seconds=seconds, target_s=TARGET_S)
        except _FAILURES as error:
            self._failed(FLYWHEEL, "overload", error)
            return None

    def soak(self, rounds: Sequence[Round]) -> dict[str, Any] | None:
        """70 % of what the three tasks got at once, on the server as it comes, cache included."""
        capacity = within(rounds, lambda r: float(r["servers"]["flywheel"]["tasks"]["rps"]))
        if not capacity:
            return None
        seconds = self.options.soak_seconds
        self.console.print(f"soak for {seconds:g} s", highlight=False)
        try:
            with running(FLYWHEEL_CACHE, self.bundle) as (url, pid):
                self._warm_up(url)
                return open_loop.soak(url, 0.7 * statistics.median(capacity), seconds=seconds, pids=[pid])
        except _FAILURES as error:
            self._failed(FLYWHEEL_CACHE, "soak", error)
            return None

    def facts(self, source: str) -> dict[str, Any]:
        """Machine, versions and settings: what a figure is worth nothing without."""
        return {
            "machine": machine.describe(),
            "versions": machine.versions(self.options.peers),
            "driver": drivers.name(),
            "texts": source,
            "seconds": self.options.seconds,
            "target_s": TARGET_S,
            "limit_setting": asdict(self.setting),
            "limit_sweep": self.swept,
            "problems": self.problems,
        }

    def _limit(self, number: int) -> tuple[float, float]:
        with self._step(f"round {number}: in-process limit", 1.5 * self.options.seconds + 4):
            rps = limit.measure(self.bundle, self.texts, self.setting, self.options.seconds)
            return rps, limit.batch1_ms(self.bundle, self.texts, self.options.seconds / 2)

    def _others(self) -> list[Peer]:
        return [FLYWHEEL_CACHE, *(PEERS[name] for name in self.options.peers if name not in self._absent)]

    def _server(self, server: Peer, r: Round, number: int) -> None:
        """Start one server, measure its scenarios, and end it. What it gave until it failed counts."""
        scenarios = self.scenarios.of(server, self.options.scenarios)
        labels = "labels" in self.options.scenarios and server is not FLYWHEEL_CACHE
        if not scenarios and not labels:
            return
        loads = r["servers"].setdefault(server.name, {})
        try:
            with ExitStack() as stack:
                with self._step(f"round {number}: start {server.title}", START_S):
                    url, pid = stack.enter_context(running(server, self.bundle))
                if labels:  # first: it leaves nothing unanswered
                    with self._step(f"round {number}: {server.title}: {NAMES['labels']}", self._load_s()):
                        r["labels"][server.name] = self._labels(server, url)
                for scenario in scenarios:
                    with self._step(f"round {number}: {server.title}: {scenario.title}", self._load_s(scenario.warm_s)):
                        loads[scenario.name] = self._load(url, scenario)
                r["memory"][server.name] = memory_mb(pid)
        except _FAILURES as error:
            self._failed(server, f"round {number}", error)

    def _failed(self, server: Peer, when: str, error: Exception) -> None:
        """The run goes on: what was measured in many minutes is not lost to one bad start."""
        self.problems[server.name] = f"{when}: {error}"
        self.console.print(f"{server.title}: {when}: {error}", highlight=False, markup=False)

    def _load(self, url: str, scenario: Scenario) -> dict[str, Any]:
        drivers.once(url, scenario.first)
        if scenario.warm_s:
            drivers.load(url, scenario.warm or scenario.calls, scenario.connections, scenario.warm_s)
            time.sleep(DRAIN_S)  # what the warm-up left unanswered
        return drivers.load(url, scenario.calls, scenario.connections, self.options.seconds, by_kind=scenario.by_kind)

    def _labels(self, server: Peer, url: str) -> dict[str, float]:
        """Alone asked once, under load in each round; `agree` is the share that Flywheel labels alike."""
        if server.name not in self._alone:
            self._alone[server.name] = labels_alone(server, url, self.texts)
        alone, flywheel = self._alone[server.name], self._alone.get(FLYWHEEL.name, {})
        agree = sum(flywheel.get(text) == label for text, label in alone.items()) / len(alone)
        return {**labels_under_load(server, url, alone, min(3.0, self.options.seconds)), "agree": agree}

    def _warm_up(self, url: str) -> None:
        (scenario,) = self.scenarios.of(FLYWHEEL, ["c16"])
        drivers.load(url, scenario.calls, scenario.connections, 3 * WARM_S)

    @contextmanager
    def _step(self, what: str, expected_s: float) -> Iterator[None]:
        self.progress.update(self._bar, description=what)
        if not self.console.is_terminal:
            self.console.print(f"{time.strftime('%H:%M:%S')} {what}", highlight=False)
        yield
        self.progress.advance(self._bar, expected_s)

    def _sweep_s(self) -> float:
        return 2 * len(limit.settings()) * (SWEEP_S + 1.5)

    def _load_s(self, warm_s: float = WARM_S) -> float:
        return float(self.options.seconds) + warm_s + DRAIN_S

    def _expected_s(self) -> float:
        """The steps' expected seconds, all of them: what the progress bar runs over."""
        servers = [FLYWHEEL, *self._others()]
        chosen = [self.scenarios.of(server, self.options.scenarios) for server in servers]
        loads = sum(self._load_s(scenario.warm_s) for scenarios in chosen for scenario in scenarios)
        labels = len(servers) - 1 if "labels" in self.options.scenarios else 0
        turns = sum(1 for scenarios in chosen if scenarios) * START_S + loads + labels * self._load_s()
        in_process = 2 * (1.5 * self.options.seconds + 4)
        return self._sweep_s() + float(self.options.rounds * (in_process + turns))


def write_plot(report: dict[str, Any], file: Path, console: Console) -> None:
    try:
        plot.draw(report, file)
    except ModuleNotFoundError as error:
        console.print(f"no plot: {error.name} is not installed (pip install 'flywheel-serve[train]')", markup=False)
    else:
        console.print(f"plotted to {file}", highlight=False)


if __name__ == "__main__":
    raise SystemExit(main())
