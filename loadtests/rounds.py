"""One run of the benchmark: rounds that measure everything once, then an overload, then a soak.

A round measures the in-process limit, Flywheel, the limit again, and then the peers; every other round has the opposite
order, because the speed of a machine drifts. One server runs at a time, started for its turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests import drivers, limit, machine, open_loop
from loadtests.peers import PEERS, Peer, PeerError, prepare
from loadtests.report import Round, within
from loadtests.servers import (
    FLYWHEEL,
    FLYWHEEL_CACHE,
    champion_bundle,
    labels_alone,
    labels_under_load,
    memory_mb,
    running,
    texts_by_stage,
)
from loadtests.texts import Corpus
from loadtests.workloads import NAMES, Scenario, Scenarios

TARGET_S = float(os.environ.get("FLYWHEEL_LIMITS__WAIT_S", "1.0"))  # as in flywheel.yaml
WARM_S, DRAIN_S, SWEEP_S, START_S = 1.0, 0.5, 1.0, 15.0
LAST_ANSWERS_S = 2.0  # until a slow server has answered what was sent last, and is idle
ENCODER_S, ALONE_RPS, LOADED_RPS = 5.0, 150.0, 400.0  # what is expected of the encoder's labels, and of a server's
# What a failing server or load generator may raise; figures of other turns are kept.
FAILURES = (PeerError, drivers.LoadError, OSError, HTTPException, ValueError, LookupError)


class Steps:
    """Progress of a run: on a terminal a bar over the steps' expected seconds, else one line per step."""

    def __init__(self, console: Console, total_s: float):
        self._console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar = self.progress.add_task("", total=total_s)

    @contextmanager
    def step(self, what: str, expected_s: float) -> Iterator[None]:
        self.progress.update(self._bar, description=what)
        if not self._console.is_terminal:
            self._console.print(f"{time.strftime('%H:%M:%S')} {what}", highlight=False)
        yield
        self.progress.advance(self._bar, expected_s)


def measure(url: str, scenario: Scenario, seconds: float) -> dict[str, Any]:
    """The result of `drivers.load` for the scenario over `seconds`, after its warm-up. Raises LoadError."""
    drivers.once(url, scenario.first)
    if scenario.warm_s:
        drivers.load(url, scenario.warm or scenario.calls, scenario.connections, scenario.warm_s)
        time.sleep(DRAIN_S)  # until the warm-up's last requests are answered
    return drivers.load(url, scenario.calls, scenario.connections, seconds, by_kind=scenario.by_kind)


def share_equal(labels: Mapping[str, str], others: Mapping[str, str]) -> float:
    """The share of the texts of `labels` that have the same label in `others`."""
    return sum(others[text] == label for text, label in labels.items()) / len(labels)


def load_s(seconds: float, warm_s: float = WARM_S) -> float:
    """How many seconds `measure` is expected to take."""
    return float(seconds) + warm_s + DRAIN_S


class Bench:
    """One run: its scenarios, servers and progress."""

    def __init__(self, options: argparse.Namespace, models: Path, corpus: Corpus, console: Console):
        """`models` is the home to serve. Raises PeerError when it has no intent champion."""
        self.options, self.models, self.corpus, self.console = options, models, corpus, console
        self.bundle, self.texts = champion_bundle(models), corpus.texts
        self.scenarios = Scenarios(self.texts, self.bundle)
        self.truth = corpus.truth if corpus.is_of(self.bundle) else None
        self.problems: dict[str, str] = {}  # a server's name -> what went wrong
        self._absent: set[str] = set()
        self._alone: dict[str, dict[str, str]] = {}  # server -> its labels of some texts, asked on an idle server
        self._labelled: set[str] = set()  # servers that were asked the labels of all texts
        self._encoder: dict[str, str] = {}  # text -> the encoder's label in process
        steps = Steps(console, self._expected_s())
        self.progress, self._step = steps.progress, steps.step

    def install(self) -> None:
        """Install the peers' environments. A peer that cannot be installed is left out, and the report says so."""
        for name in self.options.peers:
            try:
                prepare(PEERS[name])
            except PeerError as error:
                self.problems[name] = str(error)
                self._absent.add(name)

    def sweep(self) -> None:
        """Find the settings that may be the machine's limit; the rounds measure those."""
        with self._step("in-process limit: best settings", self._sweep_s()):
            found = limit.sweep(self.bundle, self.texts, SWEEP_S)
        for setting, rps in found.items():
            self.console.print(f"  {rps:6.0f} texts/s  {setting}", highlight=False)
        self.swept = {str(setting): rps for setting, rps in found.items()}
        self.contenders = list(found)[: limit.CONTENDERS]
        if "labels" in self.options.scenarios:
            with self._step("in process: labels", ENCODER_S):
                self._encoder = limit.labels(self.bundle, self.texts)

    def rounds(self) -> list[Round]:
        rounds = [self._round(number) for number in range(1, self.options.rounds + 1)]
        self.setting = limit.settle(rounds)
        return rounds

    def _round(self, number: int) -> Round:
        """Measure the limit before and after Flywheel, and the peers: last in odd rounds, first in even ones."""
        r: Round = {"servers": {}, "memory": {}, "labels": {}}
        if self._encoder and self.truth:
            r["encoder_accuracy"] = share_equal(self._encoder, self.truth)
        if number % 2:
            self._flywheel_and_limit(r, number)
        for server in self._others()[:: 1 if number % 2 else -1]:
            self._server(server, r, number)
        if not number % 2:
            self._flywheel_and_limit(r, number)
        return r

    def _flywheel_and_limit(self, r: Round, number: int) -> None:
        before, one_before = self._limit(number)
        self._server(FLYWHEEL, r, number)
        after, one_after = self._limit(number)
        r["limits"] = {setting: [before[setting], after[setting]] for setting in self.contenders}
        r["limit_batch1_ms"] = (one_before + one_after) / 2

    def overload(self, rounds: Sequence[Round]) -> dict[str, Any] | None:
        """Overload at three times the rate of c=64. None when that was not measured."""
        seconds = self.options.overload_seconds

        def run(url: str, _: int, capacity: float) -> dict[str, Any]:
            return open_loop.overload(url, capacity, seconds=seconds, target_s=TARGET_S, texts=self.texts)

        return self._open_loop(f"overload for {seconds:g} s", FLYWHEEL, rounds, "c64", run)

    def soak(self, rounds: Sequence[Round]) -> dict[str, Any] | None:
        """Soak at 70 % of the rate of `tasks`, with the cache on. None when that was not measured."""
        seconds = self.options.soak_seconds

        def run(url: str, pid: int, capacity: float) -> dict[str, Any]:
            return open_loop.soak(url, 0.7 * capacity, seconds=seconds, pids=[pid], texts=self.texts)

        return self._open_loop(f"soak for {seconds:g} s", FLYWHEEL_CACHE, rounds, "tasks", run)

    def _open_loop(
        self,
        what: str,
        server: Peer,
        rounds: Sequence[Round],
        scenario: str,
        run: Callable[[str, int, float], dict[str, Any]],
    ) -> dict[str, Any] | None:
        """Call `run` with the URL and process id of a new server, and the median rate of `scenario` in the rounds."""
        rates = within(rounds, lambda r: float(r["servers"]["flywheel"][scenario]["rps"]))
        if not rates:
            return None
        self.console.print(what, highlight=False)
        try:
            with running(server, self.bundle, self.models) as (url, pid):
                (warm_up,) = self.scenarios.of(FLYWHEEL, ["c16"])
                drivers.load(url, warm_up.calls, warm_up.connections, 3 * WARM_S)
                return run(url, pid, statistics.median(rates))
        except FAILURES as error:
            self._failed(server, what, error)
            return None

    def facts(self) -> dict[str, Any]:
        """Machine, versions and settings, without which no figure can be interpreted."""
        return {
            "machine": machine.describe(),
            "versions": machine.versions(self.options.peers),
            "model": machine.model(self.bundle),
            "driver": drivers.name(),
            "corpus": self.corpus.name,
            "texts": self.corpus.title,
            "seconds": self.options.seconds,
            "target_s": TARGET_S,
            "limit_setting": asdict(self.setting),
            "limit_sweep": self.swept,
            "problems": self.problems,
        }

    def _limit(self, number: int) -> tuple[dict[limit.Setting, float], float]:
        """Texts a second of each contender, and the median milliseconds of one text alone."""
        with self._step(f"round {number}: in-process limit", self._limit_s()):
            seconds = self.options.seconds
            rates = {setting: limit.measure(self.bundle, self.texts, setting, seconds) for setting in self.contenders}
            return rates, limit.batch1_ms(self.bundle, self.texts, seconds / 2)

    def _others(self) -> list[Peer]:
        return [*(PEERS[name] for name in self.options.peers if name not in self._absent), FLYWHEEL_CACHE]

    def _server(self, server: Peer, r: Round, number: int) -> None:
        """Start one server, measure its scenarios, and end it. Figures from before a failure are kept."""
        scenarios = self.scenarios.of(server, self.options.scenarios)
        labels = self._asks_labels(server)
        if not scenarios and not labels:
            return
        loads = r["servers"].setdefault(server.name, {})
        try:
            with ExitStack() as stack:
                with self._step(f"round {number}: start {server.title}", START_S):
                    url, pid = stack.enter_context(running(server, self.bundle, self.models))
                if labels and server.name not in self._alone:  # while no load has taught the server to wait for batches
                    with self._step(f"round {number}: {server.title}: labels alone", self._alone_s()):
                        self._alone[server.name] = labels_alone(server, url, self.texts)
                for scenario in scenarios:
                    with self._step(f"round {number}: {server.title}: {scenario.title}", self._load_s(scenario.warm_s)):
                        loads[scenario.name] = self._measure(server, url, scenario)
                if labels:
                    time.sleep(LAST_ANSWERS_S)
                    with self._step(f"round {number}: {server.title}: {NAMES['labels']}", self._labels_s()):
                        r["labels"][server.name] = self._labels(server, url)
                r["memory"][server.name] = memory_mb(pid)
        except FAILURES as error:
            self._failed(server, f"round {number}", error)

    def _failed(self, server: Peer, when: str, error: Exception) -> None:
        """Note the problem and go on, so that one server that fails does not lose the figures of the others."""
        self.problems[server.name] = f"{when}: {error}"
        self.console.print(f"{server.title}: {when}: {error}", highlight=False, markup=False)

    def _measure(self, server: Peer, url: str, scenario: Scenario) -> dict[str, Any]:
        """As `measure`; of Flywheel without cache also `early`, the share of texts that the encoder was not asked."""
        if server is not FLYWHEEL:
            return measure(url, scenario, self.options.seconds)
        before = texts_by_stage(url)
        load = measure(url, scenario, self.options.seconds)
        stages = texts_by_stage(url) - before
        return load | ({"early": stages["linear"] / stages.total()} if stages else {})

    def _asks_labels(self, server: Peer) -> bool:
        """Flywheel in each round, because its labels have bounds; a peer once; not with a cache, which would fill."""
        chosen = "labels" in self.options.scenarios and server is not FLYWHEEL_CACHE
        return chosen and (server is FLYWHEEL or server.name not in self._labelled)

    def _labels(self, server: Peer, url: str) -> dict[str, float]:
        """The labels of all texts under load, against those of some alone, the encoder's in process, and the truth."""
        alone = self._alone[server.name]
        labels, errors = labels_under_load(server, url, self.texts)
        if not labels:
            raise PeerError("no request for a label was answered")
        self._labelled.add(server.name)
        asked = alone.keys() & labels.keys()
        found = {
            "asked": len(asked),
            "differ": sum(labels[text] != alone[text] for text in asked),
            "errors": errors,
            "as_encoder": share_equal(labels, self._encoder),
        }
        return found | ({"accuracy": share_equal(labels, self.truth)} if self.truth else {})

    def _alone_s(self) -> float:
        return min(1000, len(self.texts)) / ALONE_RPS

    def _labels_s(self) -> float:
        return len(self.texts) / LOADED_RPS

    def _sweep_s(self) -> float:
        return 2 * len(limit.settings()) * (SWEEP_S + 1.5)

    def _limit_s(self) -> float:
        return float((limit.CONTENDERS + 0.5) * self.options.seconds + 6)

    def _load_s(self, warm_s: float = WARM_S) -> float:
        return load_s(self.options.seconds, warm_s)

    def _expected_s(self) -> float:
        """The sum of the steps' expected seconds: the length of the progress bar."""
        servers = [FLYWHEEL, *self._others()]
        chosen = [self.scenarios.of(server, self.options.scenarios) for server in servers]
        loads = sum(self._load_s(scenario.warm_s) for scenarios in chosen for scenario in scenarios)
        turns = sum(1 for scenarios in chosen if scenarios) * START_S + loads
        asked = sum(self._asks_labels(server) for server in servers)
        again = self.options.rounds - 1 if asked else 0
        labels = asked * self._alone_s() + (asked + again) * self._labels_s() + (ENCODER_S if asked else 0)
        return self._sweep_s() + labels + float(self.options.rounds * (2 * self._limit_s() + turns))
