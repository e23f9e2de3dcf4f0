"""A retraining without its training: real store, real MLflow and real versions, and a family that trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from export.bundle import FORMAT, MANIFEST, Lineage, Manifest
from models.curation.pipeline import RANKING_STEPS, Context, Curated, Rules, curate
from models.data.dataset import Example
from models.evaluation.checks import Check
from models.evaluation.gate import GateResult
from models.feedback.store import Store
from models.feedback.types import NewFeedback, Sample
from models.retraining.plan import Plan, Result
from models.retraining.run import retrain
from models.training.candidate import TrainedCandidate, TrainingJob
from models.training.families.base import Champion
from models.training.families.classifier import ClassifierFamily


@dataclass
class Run:
    """A home with champion 1, and what each step of the next retraining does, for tests to change."""

    home: Path
    store: Store
    champion: str | None = None
    """that the last candidate continued from"""
    accepted: bool = True
    during: Callable[[], object] = lambda: None
    """what happens while the candidate is built"""
    learned: list[list[str]] = field(default_factory=list)

    def correct(self, first: int, count: int, **changes: Any) -> list[int]:
        start = datetime.now(UTC) - timedelta(hours=1)
        items = [
            NewFeedback("intent", "desk", True, start + timedelta(seconds=n), "refund", text=f"text {n}", user=f"u{n}")
            for n in range(first, first + count)
        ]
        return [receipt.id or 0 for receipt in self.store.feedback.add(items, keep_days=30)]

    def take_back(self, number: int) -> None:
        item = NewFeedback(
            "intent", "desk", False, datetime.now(UTC), "refund", text=f"text {number}", user=f"u{number}"
        )
        assert self.store.feedback.add([item], keep_days=30)[0].outcome == "replaced"

    def later(self) -> None:
        """When the leases of a run that was killed have expired."""
        self.store.database.clock = lambda: datetime.now(UTC) + timedelta(minutes=5)

    def __call__(self, owner: str | None = None, **changes: Any) -> Result:
        return retrain(Plan("intent", **changes), self.home, self.store, "a test", lambda *_: None, owner)

    def states(self) -> dict[str, int]:
        return {state: count for state, count in self.store.feedback.counts("intent").items() if count}

    # What models.retraining.run asks of a models.training.families.base.ModelFamily, and of models.training.pipeline

    def curate(self, champion: Champion, samples: Sequence[Sample], *_: object, **__: object) -> Curated:
        context = Context(labels=frozenset({"refund"}), training=(), holdout=(), embed=NotImplemented, redact=str)
        return curate(samples, context, Rules(), RANKING_STEPS[:1])

    def replayed(self, champion: Champion, max_samples: int) -> list[Sample]:
        return ClassifierFamily().replayed(champion, max_samples)

    def continued(self, champion: Champion, learn: Sequence[Sample], *_: object) -> TrainingJob:
        samples = tuple(Example(sample.text, sample.label) for sample in learn)
        return TrainingJob("intent", parent=champion.version, samples=samples)

    def build_candidate(self, job: TrainingJob, home: Path, report: Any) -> TrainedCandidate:
        self.champion = job.parent
        self.learned.append([example.text for example in job.samples])
        self.during()
        folder = self.home / "work" / "candidate"
        (folder / "checkpoint").mkdir(parents=True)
        bundle(folder / "bundle", job.parent)
        lineage = Lineage(name="own", fingerprint="0", parent=job.parent)
        return TrainedCandidate("intent", folder / "bundle", {}, {}, [], lineage, None)

    def gate(self, *_: object) -> GateResult:
        return GateResult((Check("holdout accuracy", self.accepted, "It was looked at."),))


def bundle(path: Path, parent: str | None = None) -> None:
    """As much of a bundle as versions are told apart by."""
    path.mkdir(parents=True)
    data = Lineage(name="own", fingerprint="0", parent=parent)
    manifest = Manifest(
        format=FORMAT, task="intent", kind="classifier", labels=("refund",), max_length=32, precision="fp32",
        base_model="none", data=data, created="", files={},
    )  # fmt: skip
    (path / MANIFEST).write_bytes(orjson.dumps(manifest.model_dump()))
