"""The scenarios: which requests are sent over how many connections to which servers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.drivers import Call
from loadtests.limit import tokenizer
from loadtests.peers import Peer
from loadtests.servers import FLYWHEEL, FLYWHEEL_CACHE
from loadtests.texts import distinct, mixed_lengths, rankings, seed_texts, whole_catalogue, zipf

NAMES = {
    "c1": "one text, c=1",
    "c16": "one text, c=16",
    "c64": "one text, c=64",
    "mixed": "90 % short, 10 % to 256 tokens, c=16",
    "batch32": "32 texts a request, c=4",
    "tasks": "three tasks at once, c=8",
    "zipf": "Zipf(1.1) over 3,000 texts, c=64",
    "recommendation": "recommendation, 100 candidates, c=1",
    "labels": "labels under load, c=64",
}
ALONE = "mixed_alone"  # the short texts of `mixed` without the long ones: the baseline of their p99
COLD = "zipf_cold"  # the same distribution while the cache fills
_BESIDE = {ALONE: "short texts alone, c=16", COLD: "Zipf(1.1), cache empty at first, c=64"}
MANY = 32
RANK = "/v2/models/recommendation/predict"


def title(scenario: str) -> str:
    return (NAMES | _BESIDE)[scenario]


@dataclass(frozen=True)
class Scenario:
    name: str
    connections: int
    calls: Sequence[Call]
    texts: int = 1  # in each request
    by_kind: bool = False
    first: Sequence[Call] = ()  # sent once before all else, to fill the cache
    warm: Sequence[Call] | None = None  # sent for `warm_s` before the measurement; None: `calls`
    warm_s: float = 1.0

    @property
    def title(self) -> str:
        return title(self.name)


class Scenarios:
    """Builds the scenarios. Their requests are built once and are the same in all rounds."""

    def __init__(self, texts: Sequence[str], bundle: Path):
        self._texts = random.Random(0).sample(list(texts), len(texts))
        words = tokenizer(bundle)
        self._mixed = mixed_lengths(self._texts, lambda text: len(words.encode(text).ids), 4000)

    def of(self, server: Peer, chosen: Sequence[str]) -> list[Scenario]:
        """Those of the `chosen` scenarios that are measured on `server`, in order."""
        if server is FLYWHEEL_CACHE:
            found = [*self._zipf(), self._recommendation()]
        else:
            ones = self._calls(server, 1)
            found = [Scenario(f"c{connections}", connections, ones) for connections in (1, 16, 64)]
            if server.many:
                found.append(Scenario("batch32", 4, self._calls(server, MANY), texts=MANY))
            if server is FLYWHEEL:
                found += [*self._mixed_lengths(), self._three_tasks()]
        return [scenario for scenario in found if scenario.name.partition("_")[0] in chosen]

    def _calls(self, server: Peer, size: int) -> list[Call]:
        ends = range(size, len(self._texts) + 1, size)
        return [Call(server.path, server.body(self._texts[end - size : end])) for end in ends]

    def _mixed_lengths(self) -> list[Scenario]:
        calls = [Call(FLYWHEEL.path, FLYWHEEL.body([text]), kind) for kind, text in self._mixed]
        short = [call for call in calls if call.kind == "short"]
        return [Scenario(ALONE, 16, short, by_kind=True), Scenario("mixed", 16, calls, by_kind=True)]

    def _three_tasks(self) -> Scenario:
        rank = rankings(300, candidates=10, history=3)
        calls = []
        for intent, sentiment, body in zip(self._texts, seed_texts("sentiment"), rank, strict=False):
            calls += [
                Call(FLYWHEEL.path, FLYWHEEL.body([intent]), "intent"),
                Call("/v2/models/sentiment/predict", FLYWHEEL.body([sentiment]), "sentiment"),
                Call(RANK, body, "recommendation"),
            ]
        return Scenario("tasks", 8, calls, by_kind=True)

    def _zipf(self) -> list[Scenario]:
        """Cold, then warm. Each load has its own draws, because the same texts again would all be cache hits."""
        drawn = zipf(distinct(self._texts, 3000), 90_000)
        calls = [Call(FLYWHEEL.path, FLYWHEEL.body([text])) for text in drawn]
        cold, warm, measured = calls[:30_000], calls[30_000:60_000], calls[60_000:]
        return [Scenario(COLD, 64, cold, warm_s=0.0), Scenario("zipf", 64, measured, warm=warm, warm_s=8.0)]

    def _recommendation(self) -> Scenario:
        calls = [Call(RANK, body) for body in rankings(200, candidates=100, history=10)]
        return Scenario("recommendation", 1, calls, first=[Call(RANK, body) for body in whole_catalogue(100)])
