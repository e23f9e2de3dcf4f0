"""What a retraining does to its corrections, step by step, and what it does when something changes under it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from export.bundle import MANIFEST
from models.feedback.store import Store, StoreUnavailable
from models.releases.registry import Registry
from models.releases.release import ancestry, local_versions, make_release, read_release, write_release
from models.releases.rollout import Rollout
from models.releases.versions import add_version
from models.retraining.heartbeat import give_up
from models.retraining.plan import Result
from models.training.families.base import Champion
from tests.helpers.bare_run import Run, bundle
from tests.helpers.command import free_port

# MLflow reads its database with a loader that SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with its tables and nothing in them: making one takes a second, and each test has its own."""
    home = tmp_path_factory.mktemp("mlflow")
    Registry(home)._client.search_registered_models()
    return home / "mlflow.db"


@pytest.fixture
def run(empty_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    shutil.copyfile(empty_mlflow, tmp_path / "mlflow.db")
    bundle(tmp_path / "bundles" / "intent" / "1")
    write_release(tmp_path, make_release(tmp_path, "intent", "1"))
    made = Run(tmp_path, Store.open(f"sqlite:///{tmp_path / 'feedback.db'}"))

    monkeypatch.setattr("models.retraining.run.family_of", lambda task: made)
    monkeypatch.setattr("models.training.pipeline.build_candidate", made.build_candidate)
    yield made
    made.store.close()


def test_a_refusal_counts_against_what_the_candidate_had_learned_and_not_against_what_judged_it(run: Run) -> None:
    run.correct(0, 100)
    run.accepted = False
    assert run(min_samples=1000).outcome == "too_few"
    assert run(max_attempts=2).outcome == "refused"
    assert run.states() == {"waiting": 100}
    assert run(max_attempts=2).outcome == "refused"
    assert run.states() == {"waiting": 20, "dead": 80}
    assert run.learned[0] == run.learned[1] == [letter.sample.text for letter in run.store.queue.dead_letters("intent")]
    assert "It was looked at" in run.store.queue.dead_letters("intent")[0].reason


def test_who_started_a_run_can_give_up_what_it_held(run: Run) -> None:
    run.correct(0, 3)
    run.during = lambda: give_up(run.store, "intent", "desk-1")
    assert run(owner="desk-1").outcome == "outdated"  # and a run that was thought dead releases nothing
    assert run.states() == {"waiting": 3}


def test_an_error_counts_against_corrections_while_they_are_learned_and_not_before_or_after(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    run.correct(0, 3)
    monkeypatch.setattr("models.training.pipeline.register_candidate", fail)
    assert run(max_attempts=1).outcome == "failed"
    assert run.states() == {"waiting": 3}
    run.during = fail
    assert run(max_attempts=2).outcome == run(max_attempts=2).outcome == "failed"
    assert run.states() == {"dead": 3}


def test_a_full_disk_counts_against_no_correction(run: Run) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/full/model.onnx")

    run.correct(0, 3)
    run.during = fill
    result = run(max_attempts=1)
    assert (result.outcome, result.sentence[:41]) == ("failed", "/full/model.onnx: No space left on device")
    assert run.states() == {"waiting": 3}


def test_a_candidate_that_learned_what_was_taken_back_meanwhile_becomes_no_version(run: Run) -> None:
    run.correct(0, 3)
    run.during = lambda: run.take_back(1)
    assert run() == Result("outdated", "1 of the corrections were taken back while they were learned.")
    assert local_versions(run.home, "intent") == ["1"]
    assert run.states() == {"waiting": 2, "no_consent": 1}
    run.during = lambda: None
    assert run().outcome == "released"
    assert run.learned[-1] == ["text 0", "text 2"]


def test_a_candidate_that_learned_what_was_erased_meanwhile_becomes_no_version(run: Run) -> None:
    run.correct(0, 3)
    run.during = lambda: run.store.privacy.erase("u1")
    assert run().outcome == "outdated"
    assert local_versions(run.home, "intent") == ["1"]
    assert run.states() == {"waiting": 2}


def test_a_candidate_whose_champion_was_replaced_meanwhile_becomes_no_version(run: Run) -> None:
    run.correct(0, 3)
    bundle(run.home / "bundles" / "intent" / "7")
    run.during = lambda: Rollout(run.home, run.store, "intent", "ops").promote("7", "better")
    sentence = "Version 7 became the champion while a candidate continued from version 1."
    assert run(max_attempts=1) == Result("outdated", sentence)
    assert (read_release(run.home, "intent").champion, read_release(run.home, "intent").challenger) == ("7", None)
    assert run.states() == {"waiting": 3}
    assert run.store.audit.entries("intent")[0].action == "retrain outdated"
    run.during = lambda: None
    assert run().outcome == "released"
    assert run.champion == "7"


def test_a_run_takes_the_requests_and_ends_them_however_it_ends(run: Run) -> None:
    def requests() -> list[tuple[str, str | None, str | None]]:
        return [(one.state, one.outcome, one.version) for one in reversed(run.store.retraining.latest("intent"))]

    def fail() -> None:
        raise RuntimeError("out of memory")

    run.store.retraining.request("intent", "ops", "nothing to learn yet")
    assert run().outcome == "too_few"
    run.correct(0, 3)
    run.store.retraining.request("intent", "ops", "now")
    run.during = fail
    assert run().outcome == "failed"
    run.store.retraining.request("intent", "ops", "again")
    run.during = lambda: run.store.retraining.request("intent", "ops", "while it runs")
    version = run().version
    ended = [("done", "too_few", None), ("failed", "failed", None), ("done", "released", version)]
    assert requests() == [*ended, ("requested", None, None)]  # what was asked meanwhile is for the next


def test_a_run_that_lost_its_lock_releases_nothing_and_ends_no_request_of_the_other(run: Run) -> None:
    run.correct(0, 3)
    run.store.retraining.request("intent", "ops", "before the sale")

    def sleep() -> None:
        run.later()
        assert run.store.retraining.recover("intent", "retrain-intent") == (1, 0)
        assert run.store.locks.acquire("retrain-intent", "another", 600)
        assert run.store.retraining.start("intent")

    run.during = sleep
    assert run() == Result("outdated", "Another run has begun meanwhile.")
    assert local_versions(run.home, "intent") == ["1"]
    assert run.store.locks.is_held("retrain-intent")
    assert [one.state for one in run.store.retraining.latest("intent")] == ["running"]


def test_a_run_whose_corrections_another_has_learned_while_it_slept_releases_nothing(run: Run) -> None:
    ids = run.correct(0, 3)

    def sleep() -> None:
        run.later()
        assert run.store.locks.acquire("retrain-intent", "another", 60)
        assert len(run.store.queue.lease("intent", "another", 9, 60)) == 3
        run.store.queue.settle("another", dict.fromkeys(ids, ("used", None)))
        run.store.locks.release("retrain-intent", "another")

    run.during = sleep
    assert run().outcome == "outdated"
    assert local_versions(run.home, "intent") == ["1"]
    assert run.states() == {"used": 3}


def test_a_version_that_was_outdated_while_it_was_registered_is_gone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.correct(0, 3)

    def slow(*args: Any) -> str:
        version = add_version(*args)
        run.take_back(1)
        return version

    monkeypatch.setattr("models.releases.versions.add_version", slow)
    assert run().outcome == "outdated"
    assert local_versions(run.home, "intent") == ["1"]
    assert list((run.home / "checkpoints").rglob("*")) == [run.home / "checkpoints" / "intent"]
    assert [file for file in (run.home / "mlartifacts").rglob("*") if file.name == MANIFEST] == []
    assert mlflow.MlflowClient().search_model_versions("name='intent'") == []
    assert run.store.privacy.erase("u0").versions == {}


def test_erasure_names_the_versions_that_replayed_it_and_stops_the_run_that_does(run: Run) -> None:
    run.correct(0, 2)
    assert run(initial_stage="promote").version == "2"
    run.correct(10, 1)
    assert run(initial_stage="promote").version == "3"
    assert run.store.privacy.erase("u0").versions == {"intent": ["2", "3"]}
    run.correct(20, 1)
    run.during = lambda: run.store.privacy.erase("u1")
    assert run() == Result("outdated", "1 of the corrections were taken back while they were learned.")
    assert local_versions(run.home, "intent") == ["1", "2", "3"]
    assert run.states() == {"used": 1, "waiting": 1}


def test_what_a_killed_run_left_on_the_disk_is_swept_by_the_next(run: Run) -> None:
    work = run.home / "work"
    mine, training, other = (
        work / name for name in ("retrain-intent-abcd_123", "intent-abcd_123", "retrain-x-intent-abcd_123")
    )
    for folder in (mine, training, other):
        folder.mkdir(parents=True)
    assert run(min_samples=1000).outcome == "too_few"
    assert sorted(work.iterdir()) == [training, other]


def test_what_a_version_learned_that_was_rolled_back_is_curated_anew_and_not_replayed(run: Run) -> None:
    def replayed(champion: str) -> list[str]:
        return sorted(sample.text for sample in Champion("intent", champion, run.home, run.store).learned())

    rollout = Rollout(run.home, run.store, "intent", "ops")
    run.correct(0, 2)
    assert run(initial_stage="promote").version == "2"
    run.correct(10, 2)
    assert run(initial_stage="promote").version == "3"
    assert ancestry(run.home, "intent", "3") == ["3", "2", "1"]
    assert (replayed("1"), replayed("2"), len(replayed("3"))) == ([], ["text 0", "text 1"], 4)
    rollout.rollback("worse than it looked")
    run.correct(20, 1)
    assert run().version == "4"
    assert run.learned[-1] == ["text 10", "text 11", "text 20"]
    rollout.rollback("worse as well")
    run.accepted = False
    run.correct(30, 1)
    assert run().outcome == "refused"
    assert run.states() == {"used": 2, "waiting": 4}


class Killed(BaseException):
    """Stands for SIGKILL: nothing handles it."""


def kill(*_: object) -> int:
    raise Killed


def test_corrections_of_a_version_that_serves_are_not_learned_again_when_its_run_was_killed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.correct(0, 3)
    with monkeypatch.context() as patched:
        patched.setattr(run.store.queue, "settle", lambda owner, verdicts: kill() if verdicts else 0)
        with pytest.raises(Killed):
            run()
    assert run.states() == {"leased": 3}
    assert read_release(run.home, "intent").challenger == "2"
    run.later()
    run.correct(10, 2)
    assert run().version == "3"
    assert run.learned == [["text 0", "text 1", "text 2"], ["text 10", "text 11"]]
    assert run.states() == {"used": 5}


def test_a_store_that_is_away_when_a_version_was_released_does_not_have_it_learned_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> int:
        raise StoreUnavailable("it is away")

    run.correct(0, 3)
    with monkeypatch.context() as patched:
        patched.setattr(run.store.queue, "settle", lambda owner, verdicts: away() if verdicts else 0)
        assert (run().outcome, run.states()) == ("released", {"leased": 3})
    run.later()
    assert run().outcome == "too_few"
    assert run.states() == {"used": 3}


def test_corrections_of_a_version_that_never_served_are_learned_again_when_its_run_was_killed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.correct(0, 3)
    with monkeypatch.context() as patched:
        patched.setattr("models.retraining.run.Rollout.challenge", kill)
        with pytest.raises(Killed):
            run()
    assert run.states() == {"leased": 3}
    run.later()
    assert run().version == "3"
    assert run.learned[0] == run.learned[1]
    assert run.states() == {"used": 3}


def test_a_version_is_released_whatever_befalls_mlflow_afterwards(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.correct(0, 3)
    follow = Registry.follow
    calls: list[str] = []

    def fail_later(registry: Registry, task: str) -> None:
        calls.append(task)
        if len(calls) == 2:  # the first is the registration's
            raise RuntimeError("MLflow is away")
        follow(registry, task)

    monkeypatch.setattr(Registry, "follow", fail_later)
    assert (run().outcome, len(calls)) == ("released", 2)
    assert run.states() == {"used": 3}


def test_a_refusal_and_a_release_need_no_mlflow(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run.correct(0, 3)
    run.accepted = False
    assert run().outcome == "refused"
    run.accepted = True
    checks = (("holdout accuracy", True),)
    assert run(initial_stage="promote") == Result("released", "Accepted. It was looked at.", "2", checks=checks)
    assert run.states() == {"used": 3}
