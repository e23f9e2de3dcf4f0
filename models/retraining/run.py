"""One retraining, from waiting corrections to a released version.

lease -> curate -> fine-tune with replay -> export -> parity -> gate -> register -> release. When a run is interrupted,
the champion keeps serving and the next run leases the corrections again, since leases and lock expire.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from models.disk_errors import sentence_of
from models.feedback.store import Store, StoreError
from models.feedback.types import Sample
from models.releases.gate_reports import write_gate_report
from models.releases.release import Release, ReleaseChanged, ancestry, read_release
from models.releases.rollout import Rollout
from models.retraining.heartbeat import LEASE_S, lease_heartbeat, log_store_errors
from models.retraining.plan import Plan, Result, lock_of, new_owner, not_yet
from models.training.families import family_of
from models.training.families.base import Champion
from models.training.progress import ProgressFile

if TYPE_CHECKING:
    from models.curation.pipeline import Curated
    from models.evaluation.gate import GateResult
    from models.training.candidate import TrainedCandidate
    from models.training.progress import ReportStage

log = logging.getLogger("flywheel.retrain")

# Fewer held-out samples have no say in the gate, and more hardly raise its power: they are better learned.
_MIN_HELD_OUT, _MAX_HELD_OUT = 20, 100


class Outdated(Exception):
    """Raised in a run when its lock, release or corrections changed meanwhile: its candidate must not be released."""


def retrain(plan: Plan, home: Path, store: Store, actor: str, report: ReportStage, owner: str | None = None) -> Result:
    """Retrain once, in the name of `actor`. Every ending, failures included, is a Result and an audit log entry.

    `owner` holds the lock and the leases; who gives it can `give_up` what the run held when its process has died.
    Raises only on interruption (KeyboardInterrupt, SystemExit) or when the store cannot be reached at the start.
    """
    if (reason := not_yet(home, plan.task)) is not None:
        return Result("busy", reason)
    owner = owner or new_owner()
    lock = lock_of(plan.task)
    if not store.locks.acquire(lock, owner, LEASE_S):
        return Result("busy", f"{plan.task} is being retrained already.")
    progress = ProgressFile(home, plan.task)

    def report_stage(stage: str, done: int, total: int) -> None:
        progress(stage, done, total)
        report(stage, done, total)

    try:
        store.retraining.start(plan.task)
        result = _run_to_result(plan, home, store, owner, actor, report_stage)
        # Before the lock is released: what says `running` without it is taken for that of a run that was killed. Not
        # after it was lost: another run has taken the requests over, and reports its own progress.
        if _holds(store, lock, owner):
            progress.end(result.outcome, result.sentence, result.version)
            log_store_errors(
                lambda: store.retraining.finish(plan.task, result.outcome, result.sentence, result.version)
            )
    finally:
        log_store_errors(lambda: store.locks.release(lock, owner))
    log_store_errors(
        lambda: store.audit.append(plan.task, f"retrain {result.outcome}", result.version, actor, result.sentence)
    )
    return result


def _holds(store: Store, lock: str, owner: str) -> bool:
    """Whether no other run has taken the lock. While the store is away, none can."""
    try:
        return store.locks.acquire(lock, owner, LEASE_S)
    except StoreError:
        return True


def _run_to_result(plan: Plan, home: Path, store: Store, owner: str, actor: str, report: ReportStage) -> Result:
    run = _Run(plan, home, store, owner, actor, report)
    try:
        with lease_heartbeat(store, lock_of(plan.task), owner, run.lost):
            return run.result()
    except Outdated as error:
        result = Result("outdated", str(error))
        log_store_errors(lambda: run.give_back(result.sentence))
        return result
    except Exception as error:
        log.exception("retraining %s failed", plan.task)
        disk = sentence_of(error)
        result = Result("failed", disk or f"{type(error).__name__}: {error}")
        # A disk's fault is not the corrections': a few runs on a full disk must not make dead letters of them.
        failed = () if disk else run.in_training
        log_store_errors(lambda: run.give_back(result.sentence[:500], failed=failed))
        return result
    except (KeyboardInterrupt, SystemExit):  # the next run need not wait for the leases to expire
        log_store_errors(lambda: run.give_back("its retraining was interrupted"))
        raise


@dataclass
class _Run:
    """The state of one run. `owner` holds the lock and the leases; `actor` is named in the audit log."""

    plan: Plan
    home: Path
    store: Store
    owner: str
    actor: str
    report: ReportStage
    in_training: Sequence[int] = ()
    """ids of the corrections in the candidate being built: an error counts as a failed attempt of these"""
    lost: threading.Event = field(default_factory=threading.Event)
    """set when another run has taken the lock"""

    def result(self) -> Result:
        from models.evaluation.report import DATA as GATE_REPORT
        from models.training.pipeline import build_candidate, remove_interrupted_runs

        plan, store = self.plan, self.store
        remove_interrupted_runs(self.home, plan.task)
        release = read_release(self.home, plan.task)
        family, champion = family_of(plan.task), Champion(plan.task, release.champion, self.home, store)
        self.report("curating", 0, 0)
        live = {line for version in release.versions for line in ancestry(self.home, plan.task, version)}
        store.lineage.reconcile(plan.task, live)
        samples = store.queue.lease(plan.task, self.owner, plan.max_samples, LEASE_S)
        curated = family.curate(champion, samples, plan.rules, new_labels=plan.new_labels)
        store.queue.settle(self.owner, {id_: ("dropped", reason) for id_, reason in curated.dropped.items()})
        store.queue.settle(self.owner, {id_: ("quarantined", reason) for id_, reason in curated.quarantined.items()})
        learn, held_out = _split(curated.kept, plan.eval_fraction)
        if len(learn) < plan.min_samples:
            requeued = self.give_back("too few corrections for a run")
            sentence = f"{len(samples)} corrections, of which {len(curated.kept)} may be learned."
            return Result("too_few", sentence, requeued=requeued)

        # Read after curation, which takes minutes, in which samples may be erased.
        replay = family.replayed(champion, plan.max_samples)
        learned, replayed = [sample.id for sample in learn], [sample.id for sample in replay]
        self.in_training = learned
        job = family.continued(champion, learn, replay, plan.recipe, plan.workers)
        candidate = build_candidate(job, self.home, self.report)
        try:
            self.report("judging", 0, 0)
            result = family.gate(champion, candidate.bundle, learn, replay, held_out, plan.thresholds)
            self.in_training = ()
            checks = tuple((check.name, check.passed) for check in result.reasons)
            reports = _write_reports(plan, champion.version, curated, result, candidate)
            if not result.accepted:
                self._log_refused(candidate, result, reports)
                reason = f"a candidate that learned it was refused: {result.sentence[:300]}"
                requeued = self.give_back(reason, failed=learned)
                return Result("refused", result.sentence, requeued=requeued, checks=checks)
            self._recheck(release, learned)
            self.report("registering", 0, 0)
            gate_report = (reports[0] / GATE_REPORT).read_bytes()  # before registering moves the candidate's files
            version, release = self._register(candidate, release, learned, replayed, reports)
            write_gate_report(self.home, plan.task, version, gate_report)
        finally:
            shutil.rmtree(candidate.bundle.parent, ignore_errors=True)
        # Before its corrections are settled: if the run is killed in between, the next one settles them by the lineage
        # of the version that serves.
        self._release(version, result.sentence, release)
        requeued = 0
        try:
            store.queue.settle(self.owner, dict.fromkeys(learned, ("used", None)))
            requeued = self.give_back("judged a candidate; to be learned in a later run")
        except StoreError as error:
            log.warning(
                "%s: the next run settles the samples that version %s has learned: %s", plan.task, version, error
            )
        _update_aliases(self.home, plan.task)
        return Result("released", result.sentence, version, requeued, checks)

    def give_back(self, reason: str, failed: Sequence[int] = ()) -> int:
        """Return all corrections that the run still leases to the queue. The number that wait again."""
        max_attempts = self.plan.max_attempts
        counts = self.store.queue.give_back(self.owner, reason=reason, failed=failed, max_attempts=max_attempts)
        return counts["waiting"]

    def _log_refused(self, candidate: TrainedCandidate, result: GateResult, reports: Sequence[Path]) -> None:
        from models.releases.registry import Registry

        try:
            Registry(self.home).log_refused(
                self.plan.task,
                parameters={**candidate.parameters, **candidate.lineage.model_dump()},
                metrics=candidate.metrics,
                artifacts=reports,
                reason=result.sentence,
            )
        except Exception as error:  # MLflow, its database driver and the network raise many types
            log.warning("%s: MLflow does not know of the refused candidate: %s", self.plan.task, error)

    def _recheck(self, before: Release, learned: Sequence[int]) -> Release:
        """The current release. Raises Outdated when the run has lost its lock, when some of its corrections were
        changed or erased, or when the champion or the challenger is not the one of `before`.

        Another run gets the lock when the machine sleeps, or the store is unreachable, for longer than the lock lasts.
        """
        if self.lost.is_set() or not self.store.locks.acquire(lock_of(self.plan.task), self.owner, LEASE_S):
            raise Outdated("Another run has begun meanwhile.")
        if gone := self.store.queue.not_held(self.owner, learned):
            raise Outdated(f"{len(gone)} of the corrections were taken back while they were learned.")
        current = read_release(self.home, self.plan.task)
        if current.champion != before.champion:
            continued = f"while a candidate continued from version {before.champion}"
            raise Outdated(f"Version {current.champion} became the champion {continued}.")
        if current.challenger not in (None, before.challenger):
            raise Outdated(f"Version {current.challenger} became the challenger while a candidate was trained.")
        return current

    def _register(
        self,
        candidate: TrainedCandidate,
        before: Release,
        learned: Sequence[int],
        replayed: Sequence[int],
        reports: Sequence[Path],
    ) -> tuple[str, Release]:
        """Register the candidate. The new version, and the current release, which it may change. Raises Outdated."""
        from models.releases.versions import withdraw_version
        from models.training.pipeline import register_candidate

        version = register_candidate(candidate, self.home, reports)
        try:
            release = self._recheck(before, learned)  # registering in MLflow may take long
            if gone := self.store.lineage.record(version, [*learned, *replayed]):
                raise Outdated(f"{len(gone)} of the corrections were taken back while they were learned.")
        except Exception:
            withdraw_version(self.home, self.plan.task, version)
            raise
        return version, release

    def _release(self, version: str, reason: str, expected: Release) -> None:
        rollout = Rollout(self.home, self.store, self.plan.task, self.actor)
        try:
            if self.plan.initial_stage == "promote":
                rollout.promote(version, reason, expected)
            else:
                rollout.challenge(version, self.plan.initial_stage, self.plan.canary_fraction, reason, expected)
        except ReleaseChanged as error:
            raise Outdated(str(error)) from error


def _split(kept: Sequence[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    """(samples to learn, samples held out for the gate): the newest `share` are held out, since data drifts."""
    by_time = sorted(kept, key=lambda sample: (sample.at, sample.id))
    count = min(int(len(by_time) * share), _MAX_HELD_OUT)
    if count < _MIN_HELD_OUT:
        return by_time, []
    # All feedback on one prediction stays on one side: with half of it, the other items would count as not chosen.
    predictions = {sample.prediction_id for sample in by_time[-count:]} - {None}
    held_out = [s for i, s in enumerate(by_time) if i >= len(by_time) - count or s.prediction_id in predictions]
    held_out_ids = {sample.id for sample in held_out}
    return [sample for sample in by_time if sample.id not in held_out_ids], held_out


def _write_reports(
    plan: Plan, champion: str, curated: Curated, result: GateResult, candidate: TrainedCandidate
) -> list[Path]:
    """Write the gate report and the curation report as folders for MLflow. They name feedback by id, never by text."""
    from models.evaluation.report import write_report

    gate_report, curation_report = candidate.bundle.parent / "verdict", candidate.bundle.parent / "curation"
    learned = candidate.lineage.samples
    facts = {"task": plan.task, "champion": champion, "corrections learned": "" if learned is None else str(learned)}
    write_report(result, gate_report, title=f"{plan.task}: candidate against version {champion}", facts=facts)
    curation_report.mkdir()
    (curation_report / "curation.md").write_text(curated.report.markdown(), encoding="utf-8")
    (curation_report / "curation.json").write_bytes(orjson.dumps(curated.report.to_dict(), option=orjson.OPT_INDENT_2))
    return [gate_report, curation_report]


def _update_aliases(home: Path, task: str) -> None:
    """Set MLflow's aliases. A failure is only logged: the version serves already, and the next move sets them too."""
    from models.releases.registry import Registry

    try:
        Registry(home).follow(task)
    except Exception:
        log.exception("%s: MLflow's aliases are behind the release", task)
