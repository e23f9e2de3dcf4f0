"""From waiting corrections to a version that serves: the table of contents of the loop.

lease -> curate -> fine-tune with replay -> export -> parity -> gate -> register -> release. Whatever interrupts it, the
champion serves on and the corrections go to the next attempt: leases and the lock expire by themselves.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from models.feedback.store import Store, StoreError
from models.feedback.types import Sample
from models.releases.gate_reports import write_gate_report
from models.releases.release import Release, ReleaseChanged, ancestry, read_release
from models.releases.rollout import Rollout
from models.retraining.heartbeat import LEASE_S, held, quietly
from models.retraining.plan import Plan, Result, lock_of
from models.training.families import family_of
from models.training.families.base import Champion
from models.training.progress import ProgressFile

if TYPE_CHECKING:
    from models.curation.pipeline import Curated
    from models.evaluation.gate import GateResult
    from models.training.candidate import Candidate
    from models.training.progress import Stage

log = logging.getLogger("flywheel.retrain")

# Fewer have no say in the gate, and more make it little sharper: both are better learned from.
_MIN_HELD_OUT, _MAX_HELD_OUT = 20, 100


class Outdated(Exception):
    """Raised within a run when what it began with has changed: nothing of it may serve, and the next may begin anew."""


def retrain(plan: Plan, home: Path, store: Store, who: str, report: Stage) -> Result:
    """One run. Every way it can end is a Result and an entry in the audit log; only interruption raises."""
    owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    lock = lock_of(plan.task)
    if not store.locks.acquire(lock, owner, LEASE_S):
        return Result("busy", f"{plan.task} is being retrained already.")
    progress = ProgressFile(home, plan.task)

    def told(stage: str, done: int, total: int) -> None:
        progress(stage, done, total)
        report(stage, done, total)

    try:
        result = _ended(plan, home, store, owner, who, told)
        # While the lock is held: without it, a progress that has not ended means that the run was killed.
        progress.end(result.outcome, result.sentence, result.version)
    finally:
        quietly(lambda: store.locks.release(lock, owner))
    quietly(lambda: store.audit.append(plan.task, f"retrain {result.outcome}", result.version, who, result.sentence))
    return result


def _ended(plan: Plan, home: Path, store: Store, owner: str, who: str, report: Stage) -> Result:
    run = _Run(plan, home, store, owner, who, report)
    try:
        with held(store, lock_of(plan.task), owner, run.lost):
            return run.result()
    except Outdated as error:
        result = Result("outdated", str(error))
        quietly(lambda: run.give_back(result.sentence))
        return result
    except Exception as error:
        log.exception("retraining %s failed", plan.task)
        result = Result("failed", f"{type(error).__name__}: {error}")
        quietly(lambda: run.give_back(result.sentence[:500], failed=run.learning))
        return result


@dataclass
class _Run:
    """One run, in the hands of whoever holds the lock."""

    plan: Plan
    home: Path
    store: Store
    owner: str
    who: str
    report: Stage
    learning: Sequence[int] = ()
    """the corrections that a candidate is made of just now: an error is counted against these"""
    lost: threading.Event = field(default_factory=threading.Event)
    """set when another has the lock"""

    def result(self) -> Result:
        from models.evaluation.report import DATA as GATE_REPORT
        from models.training.pipeline import build_candidate, sweep

        plan, store = self.plan, self.store
        sweep(self.home, plan.task)
        release = read_release(self.home, plan.task)
        family, champion = family_of(plan.task), Champion(plan.task, release.champion, self.home, store)
        self.report("curating", 0, 0)
        live = {line for version in release.versions for line in ancestry(self.home, plan.task, version)}
        store.lineage.follow_versions(plan.task, live)
        samples = store.queue.lease(plan.task, self.owner, plan.max_samples, LEASE_S)
        known = family.replayed(champion, plan.max_samples)
        curated = family.curate(champion, samples, known, plan.rules, new_labels=plan.new_labels)
        store.queue.settle(self.owner, {id_: ("dropped", why) for id_, why in curated.dropped.items()})
        store.queue.settle(self.owner, {id_: ("quarantined", why) for id_, why in curated.quarantined.items()})
        learn, judge = _split(curated.kept, plan.eval_fraction)
        if len(learn) < plan.min_samples:
            left = self.give_back("too few corrections for a run")
            sentence = f"{len(samples)} corrections, of which {len(curated.kept)} may be learned from."
            return Result("too_few", sentence, left=left)

        again = family.replayed(champion, plan.max_samples)  # curation takes minutes: what was taken back is left out
        learned, replayed = ([sample.id for sample in samples] for samples in (learn, again))
        self.learning = learned
        job = family.continued(champion, learn, again, plan.recipe, plan.workers)
        candidate = build_candidate(job, self.home, self.report)
        try:
            self.report("judging", 0, 0)
            result = family.gate(champion, candidate.bundle, learn, again, judge, plan.thresholds)
            self.learning = ()
            pages = _pages(plan, champion.version, curated, result, candidate)
            if not result.accepted:
                self._log_refused(candidate, result, pages)
                why = f"a candidate that learned it was refused: {result.sentence[:300]}"
                return Result("refused", result.sentence, left=self.give_back(why, failed=learned))
            self._recheck(release, learned)
            self.report("registering", 0, 0)
            gate_report = (pages[0] / GATE_REPORT).read_bytes()  # registering moves the candidate's files away
            version, release = self._registered(candidate, release, learned, replayed, pages)
            write_gate_report(self.home, plan.task, version, gate_report)
        finally:
            shutil.rmtree(candidate.bundle.parent, ignore_errors=True)
        # Before its corrections are settled: killed in between, the next run finds them by the version that serves.
        self._release(version, result.sentence, release)
        left = 0
        try:
            store.queue.settle(self.owner, dict.fromkeys(learned, ("used", None)))
            left = self.give_back("judged a candidate; to be learned in a later run")
        except StoreError as error:
            log.warning("%s: the next run settles what version %s has learned: %s", plan.task, version, error)
        _follow(self.home, plan.task)
        return Result("released", result.sentence, version, left)

    def give_back(self, why: str, failed: Sequence[int] = ()) -> int:
        """Everything that is still held; how many wait again."""
        counts = self.store.queue.give_back(self.owner, reason=why, failed=failed, max_attempts=self.plan.max_attempts)
        return counts["waiting"]

    def _log_refused(self, candidate: Candidate, result: GateResult, pages: Sequence[Path]) -> None:
        from models.releases.registry import Registry

        Registry(self.home).log_refused(
            self.plan.task,
            parameters={**candidate.parameters, **candidate.lineage.model_dump()},
            metrics=candidate.metrics,
            artifacts=pages,
            why=result.sentence,
        )

    def _recheck(self, before: Release, learned: Sequence[int]) -> Release:
        """The release of now. Raises Outdated when the run is no longer the task's only one, when its corrections were
        taken back, or when since `before` another champion serves or there is another challenger.

        A machine that slept, or a store that was away for longer than the lock lasts, lets another run begin.
        """
        if self.lost.is_set() or not self.store.locks.acquire(lock_of(self.plan.task), self.owner, LEASE_S):
            raise Outdated("Another run has begun meanwhile.")
        if gone := self.store.queue.not_held(self.owner, learned):
            raise Outdated(f"{len(gone)} of the corrections were taken back while they were learned.")
        now = read_release(self.home, self.plan.task)
        if now.champion != before.champion:
            continued = f"while a candidate continued from version {before.champion}"
            raise Outdated(f"Version {now.champion} became the champion {continued}.")
        if now.challenger not in (None, before.challenger):
            raise Outdated(f"Version {now.challenger} became the challenger while a candidate was trained.")
        return now

    def _registered(
        self,
        candidate: Candidate,
        before: Release,
        learned: Sequence[int],
        replayed: Sequence[int],
        pages: Sequence[Path],
    ) -> tuple[str, Release]:
        """The new version, and the release that it may change."""
        from models.releases.registry import Registry
        from models.training.pipeline import register_candidate

        version = register_candidate(candidate, self.home, pages)
        try:
            release = self._recheck(before, learned)  # MLflow may have taken its time
            if gone := self.store.lineage.trained_on(version, [*learned, *replayed]):
                raise Outdated(f"{len(gone)} of the corrections were taken back while they were learned.")
        except Exception:
            Registry(self.home).withdraw(self.plan.task, version)
            raise
        return version, release

    def _release(self, version: str, why: str, expected: Release) -> None:
        rollout = Rollout(self.home, self.store, self.plan.task, self.who)
        try:
            if self.plan.initial_stage == "promote":
                rollout.promote(version, why, expected)
            else:
                rollout.challenge(version, self.plan.initial_stage, self.plan.canary_fraction, why, expected)
        except ReleaseChanged as error:
            raise Outdated(str(error)) from error


def _split(kept: Sequence[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    """What to learn from, and the newest, which judge. What is told later may be of another kind."""
    in_time = sorted(kept, key=lambda sample: (sample.at, sample.id))
    count = min(int(len(in_time) * share), _MAX_HELD_OUT)
    if count < _MIN_HELD_OUT:
        return in_time, []
    # What was told of one answer stays together: half of it would say the rest was not chosen.
    answers = {sample.prediction_id for sample in in_time[-count:]} - {None}
    judge = [s for i, s in enumerate(in_time) if i >= len(in_time) - count or s.prediction_id in answers]
    held = {sample.id for sample in judge}
    return [sample for sample in in_time if sample.id not in held], judge


def _pages(plan: Plan, champion: str, curated: Curated, result: GateResult, candidate: Candidate) -> list[Path]:
    """The decision and the curation report as folders for MLflow. Feedback is in them by id, never by text."""
    from models.evaluation.report import write_report

    judged, sorted_ = candidate.bundle.parent / "verdict", candidate.bundle.parent / "curation"
    learned = candidate.lineage.samples
    facts = {"task": plan.task, "champion": champion, "corrections learned": "" if learned is None else str(learned)}
    write_report(result, judged, title=f"{plan.task}: candidate against version {champion}", facts=facts)
    sorted_.mkdir()
    (sorted_ / "curation.md").write_text(curated.report.markdown(), encoding="utf-8")
    (sorted_ / "curation.json").write_bytes(orjson.dumps(curated.report.to_dict(), option=orjson.OPT_INDENT_2))
    return [judged, sorted_]


def _follow(home: Path, task: str) -> None:
    """MLflow's aliases, which nothing waits for: the version serves, and the next move sets them anyway."""
    from models.releases.registry import Registry

    try:
        Registry(home).follow(task)
    except Exception:
        log.exception("%s: MLflow's aliases are behind the release", task)
