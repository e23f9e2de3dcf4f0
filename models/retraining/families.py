"""What is a kind of task's own in a retraining: what may be learned, how it is learned, and what judges it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from export.bundle import Bundle
from models.data.dataset import Example, load_corpus
from models.data.implicit_feedback import with_rankings
from models.data.interactions import EVENTS, Behaviour, load_kept_behaviour
from models.feedback.store import Store
from models.feedback.types import Sample
from models.releases.release import ancestry
from models.tasks.base import get_task

if TYPE_CHECKING:
    from models.curation.pipeline import Curated
    from models.evaluation.gate import Verdict
    from models.retraining.plan import Plan
    from models.training.candidate import Candidate
    from models.training.progress import Stage


class Learner(Protocol):
    """The three steps of a run that differ. Each may take minutes."""

    def curate(self, samples: Sequence[Sample]) -> Curated:
        """What of the leased samples may be learned from."""

    def replayed(self) -> list[Sample]:
        """What of earlier runs the candidate may learn again."""

    def build(self, learn: Sequence[Sample], report: Stage) -> Candidate:
        """A candidate that has learned them and not forgotten the rest."""

    def judge(self, candidate: Candidate, learned: Sequence[Sample], judge: Sequence[Sample]) -> Verdict:
        """The candidate against the champion, on the frozen holdout and on the newest samples, `judge`."""


def learner_of(plan: Plan, home: Path, champion: str, store: Store) -> Learner:
    kind = TextLearner if get_task(plan.task).kind == "classifier" else RankingLearner
    return kind(plan, home, champion, store)


@dataclass(frozen=True)
class _Champion:
    plan: Plan
    home: Path
    champion: str
    store: Store

    @property
    def bundle(self) -> Bundle:
        return Bundle.open(self.home / "bundles" / self.plan.task / self.champion)

    def _used(self, limit: int | None = None) -> list[Sample]:
        """What the champion or a version before it has learned; never what a version learned that was withdrawn."""
        line = ancestry(self.home, self.plan.task, self.champion)
        return self.store.feedback.used(self.plan.task, line, limit)


class TextLearner(_Champion):
    """Labelled texts: curated against the corpus, fine-tuned with replay, judged on the corpus's holdout."""

    def curate(self, samples: Sequence[Sample]) -> Curated:
        from models.curation.embeddings import base_encoder
        from models.curation.pipeline import Context, curate
        from models.feedback.pii import redact

        manifest = self.bundle.manifest
        corpus = load_corpus(self.home, self.plan.task, manifest.data)
        context = Context(
            labels=frozenset(manifest.labels),
            training=[*corpus.train, *self._learned()],
            holdout=[example.text for example in corpus.holdout],
            embed=base_encoder(max_length=manifest.max_length),
            redact=redact,
            new_labels=self.plan.new_labels,
        )
        return curate(samples, context, self.plan.rules)

    def build(self, learn: Sequence[Sample], report: Stage) -> Candidate:
        from models.training.candidate import Job
        from models.training.pipeline import build_candidate

        job = Job(
            self.plan.task,
            recipe=self.plan.recipe,
            parent=self.champion,
            precision=self.bundle.manifest.precision,
            samples=tuple(Example(sample.text, sample.label) for sample in learn),
            learned=tuple(self._learned()),
            workers=self.plan.workers,
        )
        return build_candidate(job, self.home, report)

    def judge(self, candidate: Candidate, learned: Sequence[Sample], judge: Sequence[Sample]) -> Verdict:
        from models.evaluation.gate import gate_classifier

        champion = self.bundle
        holdout = load_corpus(self.home, self.plan.task, champion.manifest.data).holdout
        return gate_classifier(champion.path, candidate.bundle, holdout, judge, self.plan.thresholds)

    def replayed(self) -> list[Sample]:
        return self._used()

    def _learned(self) -> list[Example]:
        return [Example(sample.text, sample.label) for sample in self.replayed()]


class RankingLearner(_Champion):
    """What users did with the rankings they got, added to the behaviour that the champion was trained on.

    What earlier runs learned is read again from the store, and so for as long as the prediction log keeps the rankings
    it belongs to (`feedback.log.keep_days`): behaviour is not kept longer than that, and old behaviour says little.
    """

    def curate(self, samples: Sequence[Sample]) -> Curated:
        from models.curation.pipeline import RANKING_STEPS, Context, curate
        from models.feedback.pii import redact

        context = Context(labels=EVENTS, training=(), holdout=(), embed=_nothing, redact=redact)
        return curate(samples, context, self.plan.rules, RANKING_STEPS)

    def build(self, learn: Sequence[Sample], report: Stage) -> Candidate:
        from models.training.candidate import Job
        from models.training.pipeline import build_candidate

        recipe = (("base", self.bundle.manifest.base_model), ("max_length", self.bundle.manifest.max_length))
        behaviour = with_rankings(self._behaviour(), self.replayed(), learn)
        precision = self.bundle.manifest.precision
        job = Job(self.plan.task, recipe=recipe, parent=self.champion, precision=precision, behaviour=behaviour)
        return build_candidate(job, self.home, report)

    def judge(self, candidate: Candidate, learned: Sequence[Sample], judge: Sequence[Sample]) -> Verdict:
        from models.evaluation.gate import gate_ranker

        behaviour = with_rankings(self._behaviour(), self.replayed(), learned, judge)
        return gate_ranker(self.bundle.path, candidate.bundle, behaviour, self.plan.thresholds)

    def _behaviour(self) -> Behaviour:
        return load_kept_behaviour(self.home, self.plan.task, self.bundle.manifest.data)

    def replayed(self) -> list[Sample]:
        return self._used(self.plan.most)  # each with the whole ranking that it belongs to


def _nothing(texts: Sequence[str]) -> NDArray[np.float32]:
    """For steps that compare no texts."""
    return np.zeros((len(texts), 0), np.float32)
