"""Versions on the move: who gets which, what a move leaves behind, what evidence decides, and a server that follows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.feedback.store import Store
from models.home import release_file
from models.releases import audit_outbox
from models.releases.release import Release, ReleaseChanged, ReleaseError, read_release
from models.releases.rollout import Rollout
from serve.config import RolloutConfig
from serve.controller.canary_analysis import Tally, Verdict, decide, watch
from serve.engine.routing import Router
from serve.errors import NotFound
from tests.conftest import start_server, stop_server
from tests.test_cli import mlflow_client
from tests.test_http import assert_error
from tests.test_lifecycle import eventually

CANARY = Release(
    task="intent", champion="1", versions={"1": "a", "2": "b"}, challenger="2", mode="canary", share=0.1, previous="0"
)
SHADOW = CANARY.model_copy(update={"mode": "shadow", "share": 0.0})
LOADED = {"1": "first", "2": "second"}
RULES = RolloutConfig(least_answers=100, least_s=10, least_feedback=20)


def test_a_canary_gets_its_share_of_the_users_and_each_user_one_version() -> None:
    router = Router(CANARY, LOADED)
    users = [f"user {number}" for number in range(20_000)]
    chosen = {user: router.choose(None, user) for user in users}
    assert abs(sum(version == "second" for version in chosen.values()) / len(users) - 0.1) < 0.01
    assert all(router.choose(None, user) == version for user, version in chosen.items())
    strangers = [router.choose() for _ in range(20_000)]
    assert abs(strangers.count("second") / len(strangers) - 0.1) < 0.01


def test_each_challenger_is_tried_on_other_users() -> None:
    other = Router(
        CANARY.model_copy(update={"challenger": "3", "versions": {"1": "a", "3": "c"}}), {"1": "x", "3": "y"}
    )
    users = [f"user {number}" for number in range(5000)]
    both = sum(Router(CANARY, LOADED).choose(None, u) == "second" and other.choose(None, u) == "y" for u in users)
    assert both / len(users) < 0.02  # a tenth of a tenth


def test_shadow_and_pinned_versions() -> None:
    router = Router(SHADOW, LOADED)
    assert {router.choose(None, f"user {number}") for number in range(100)} == {"first"}
    assert router.shadow == "second"
    assert router.choose("2") == "second"
    with pytest.raises(NotFound):
        router.choose("3")
    assert (router.traffic("1"), router.traffic("2")) == (1.0, 0.0)
    assert (Router(CANARY, LOADED).traffic("1"), Router(CANARY, LOADED).traffic("2")) == (0.9, 0.1)


@pytest.fixture
def rollout(tmp_path: Path) -> Rollout:
    for version in ("1", "2", "3"):
        (tmp_path / "bundles" / "intent" / version).mkdir(parents=True)
    moves = Rollout(tmp_path, Store.open(f"sqlite:///{tmp_path / 'feedback.db'}"), "intent", "a test")
    moves.promote("1", "the first")
    return moves


def test_moves_change_the_release_and_are_all_in_the_audit_log(rollout: Rollout) -> None:
    assert rollout.challenge("2", "shadow", 0.0, "try").mode == "shadow"
    canary = rollout.challenge("2", "canary", 0.2, "looks well")
    assert (canary.champion, canary.challenger, canary.share) == ("1", "2", 0.2)
    promoted = rollout.promote(None, "better")
    assert (promoted.champion, promoted.challenger, promoted.previous) == ("2", None, "1")
    back = rollout.rollback("worse after all")
    assert (back.champion, back.previous) == ("1", None)
    assert read_release(rollout.home, "intent") == back
    entries = rollout.store.audits("intent")
    assert [entry.action for entry in reversed(entries)] == ["promote", "shadow", "canary", "promote", "rollback"]
    assert {entry.who for entry in entries} == {"a test"}
    assert entries[0].why == "worse after all"
    assert entries[0].detail == {"withdrawn": "2"}


def test_a_rollback_withdraws_the_challenger_first(rollout: Rollout) -> None:
    rollout.promote("2", "next")
    rollout.challenge("3", "canary", 0.5, "try")
    assert rollout.rollback("bad").champion == "2"
    assert rollout.rollback("bad as well").champion == "1"
    with pytest.raises(ReleaseError, match="nothing to go back to"):
        rollout.rollback("once more")


def test_a_rollback_that_names_its_version_is_harmless_when_repeated(rollout: Rollout) -> None:
    rollout.promote("2", "next")
    rollout.challenge("3", "canary", 0.5, "try")
    assert rollout.rollback("bad", "3").champion == "2"
    with pytest.raises(ReleaseChanged, match="neither the champion nor the challenger"):
        rollout.rollback("bad", "3")
    assert read_release(rollout.home, "intent").champion == "2"
    rollout.challenge("3", "canary", 0.5, "try again")
    back = rollout.rollback("the champion is what is bad", "2")
    assert (back.champion, back.challenger) == ("1", None)
    assert rollout.store.audits("intent")[0].detail == {"withdrawn": "2"}


@pytest.mark.parametrize(
    "move",
    [
        lambda r, seen: r.promote("3", "", seen),
        lambda r, seen: r.challenge("3", "canary", 0.2, "", seen),
        lambda r, seen: r.rollback("", expected=seen),
    ],
)
def test_a_move_decided_on_a_release_that_has_changed_is_not_made(
    rollout: Rollout, move: Callable[[Rollout, Release], Release]
) -> None:
    seen = rollout.promote("2", "next")
    now = rollout.challenge("3", "canary", 0.5, "somebody else")
    with pytest.raises(ReleaseChanged, match="changed meanwhile"):
        move(rollout, seen)
    assert read_release(rollout.home, "intent") == now
    move(rollout, now)


@pytest.mark.parametrize(
    ("move", "sentence"),
    [
        (lambda r: r.promote("9", ""), "no version '9'"),
        (lambda r: r.promote(None, ""), "no challenger"),
        (lambda r: r.challenge("1", "canary", 0.1, ""), "champion already"),
        (lambda r: r.challenge("2", "canary", 1.0, ""), "between 0 and 1"),
        (lambda r: r.challenge("9", "shadow", 0.0, ""), "no version '9'"),
    ],
)
def test_a_move_that_cannot_be_made_changes_nothing(
    rollout: Rollout, move: Callable[[Rollout], Release], sentence: str
) -> None:
    before = read_release(rollout.home, "intent")
    with pytest.raises(ReleaseError, match=sentence):
        move(rollout)
    assert read_release(rollout.home, "intent") == before


def test_a_promotion_mends_a_damaged_release(rollout: Rollout) -> None:
    release_file(rollout.home, "intent").write_text("{")
    assert rollout.promote("2", "mend").champion == "2"


def test_a_rollback_needs_no_database_and_is_in_the_audit_log_when_it_is_back(rollout: Rollout) -> None:
    rollout.promote("2", "next")
    kept = rollout.home / "audit" / "intent.jsonl"
    unreachable = Store("postgresql://nobody@127.0.0.1:1/none", patience_s=0.2)
    assert Rollout(rollout.home, unreachable, "intent", "ops").rollback("now").champion == "1"
    assert rollout.store.audits("intent")[0].action == "promote"
    with kept.open("ab") as file:
        file.write(b'{"at": "20')  # a crash, while another was written
    assert Rollout(rollout.home, unreachable, "intent", "ops").promote("3", "next").champion == "3"
    lines = kept.read_bytes()

    audit_outbox.flush(rollout.home, "intent", rollout.store)
    entries = rollout.store.audits("intent")
    assert [(entry.action, entry.version, entry.who, entry.why) for entry in entries[:2]] == [
        ("promote", "3", "ops", "next"),
        ("rollback", "1", "ops", "now"),
    ]
    assert entries[1].detail == {"withdrawn": "2"}
    kept.write_bytes(lines)  # as a crash leaves it between the transaction and the file
    audit_outbox.flush(rollout.home, "intent", rollout.store)
    assert rollout.store.audits("intent") == entries
    assert kept.stat().st_size == 0


FINE = Tally(answers=500, texts=400, seconds=4.0)


@pytest.mark.parametrize(
    ("release", "challenger", "champion", "accuracy", "age", "step"),
    [
        (CANARY, Tally(answers=50, seconds=0.5), FINE, {}, 60, "wait"),
        (CANARY, FINE, FINE, {}, 5, "wait"),
        (CANARY, FINE, FINE, {}, 60, "promote"),
        (CANARY, Tally(answers=500, errors=20, seconds=5), FINE, {}, 60, "rollback"),
        (CANARY, Tally(answers=500, errors=20, seconds=5), Tally(answers=500, errors=30, seconds=5), {}, 60, "promote"),
        (CANARY, Tally(answers=30, errors=25, seconds=1), FINE, {}, 1, "rollback"),
        (CANARY, Tally(answers=500, texts=100, seconds=4), FINE, {}, 60, "rollback"),
        (CANARY, FINE, FINE, {"1": (90, 100), "2": (60, 100)}, 60, "rollback"),
        (CANARY, FINE, FINE, {"1": (90, 100), "2": (88, 100)}, 60, "promote"),
        (CANARY, FINE, FINE, {"1": (9, 10), "2": (1, 10)}, 60, "promote"),
        (SHADOW, Tally(agree=480, differ=20), FINE, {}, 60, "canary"),
        (SHADOW, Tally(agree=100, differ=400), FINE, {}, 60, "rollback"),
        (SHADOW, Tally(agree=450, failed=50), FINE, {}, 60, "rollback"),
        (SHADOW, Tally(answers=500), FINE, {}, 60, "wait"),
    ],
)
def test_what_evidence_decides(
    release: Release, challenger: Tally, champion: Tally, accuracy: dict[str, tuple[int, int]], age: float, step: str
) -> None:
    verdict = decide(release, challenger, champion, accuracy, age, RULES)
    assert isinstance(verdict, Verdict)
    assert verdict.step == step, verdict.why
    assert verdict.why


@pytest.mark.parametrize(
    ("champion", "before", "step"),
    [
        (Tally(answers=500, errors=100, faults=3), Tally(), "wait"),  # deadlines passed, which the load may have done
        (Tally(answers=500, faults=20), Tally(answers=500), "rollback"),
        (Tally(answers=500, faults=20), Tally(answers=500, faults=25), "wait"),  # so it was before
        (Tally(answers=50, faults=20), Tally(), "wait"),
        (Tally(answers=30, faults=25), Tally(), "rollback"),
        (Tally(), Tally(), "wait"),
    ],
)
def test_what_becomes_of_a_promoted_version_that_fails(champion: Tally, before: Tally, step: str) -> None:
    verdict = watch(champion, before, RULES)
    assert verdict.step == step, verdict.why


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy
def test_a_server_follows_shadow_canary_promotion_and_rollback(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "bundles" / "intent" / "1", home / "bundles" / "intent" / "2")
    registry = mlflow_client(home)
    registry.create_registered_model("intent")
    for _ in ("1", "2"):
        registry.create_model_version("intent", "file:///a-bundle")
    server = start_server(
        home,
        tmp_path / "log",
        FLYWHEEL_LEARNING__AUTOMATIC="false",
        FLYWHEEL_ROLLOUT__AUTOMATIC="false",
        FLYWHEEL_SERVER__OPERATOR_TOKEN="s3cret-token",
    )
    model = "/v2/models/intent"
    operator = {"authorization": "Bearer s3cret-token"}

    def move(name: str, **body: Any) -> httpx.Response:
        return server.post(f"{model}/{name}", json=body, headers=operator)

    def answers(count: int = 40) -> set[str]:
        def version(user: int) -> str:
            asked = server.post(f"{model}/predict", json={"text": "hi"}, headers={"x-user-id": f"u{user}"})
            return str(asked.json()["model_version"])

        with ThreadPoolExecutor(8) as pool:  # one at a time would meet one replica alone
            return set(pool.map(version, range(count)))

    def alias(version: str) -> str | None:
        details = server.get(model).json()["version_details"]
        return next((found["alias"] for found in details if found["version"] == version), None)

    def aliases() -> dict[str, str]:
        found = registry.get_registered_model("intent").aliases
        return {alias: str(version) for alias, version in found.items()}

    try:
        for path in ("promote", "challenge", "rollback", "retrain", "erase"):
            assert_error(server.post(f"{model}/{path}", json={}), 403)
        for path in ("audit", "retrain"):
            wrong = httpx.get(f"{server.url}{model}/{path}", headers={"authorization": "Bearer guess"}, timeout=30)
            assert_error(wrong, 403)
        assert move("challenge", version="2", mode="shadow").status_code == 200
        eventually(lambda: alias("2") == "challenger", 10)
        eventually(lambda: answers() == {"1"} and 'result="agree"' in server.get("/metrics").text, 10)
        assert move("challenge", version="2", mode="canary", share=0.5).is_success
        eventually(lambda: answers() == {"1", "2"}, 10)
        assert move("promote", why="test").json()["champion"] == "2"
        eventually(lambda: answers() == {"2"} and alias("2") == "champion", 10)
        assert move("rollback", version="2", why="test").json()["champion"] == "1"
        eventually(lambda: answers() == {"1"}, 10)
        assert_error(move("rollback", version="2"), 409)
        assert move("rollback").status_code == 409
        audit = httpx.get(f"{server.url}{model}/audit", headers=operator, timeout=30).json()["audit"]
        actions = [entry["action"] for entry in audit]
        assert actions == ["rollback", "promote", "canary", "shadow"]
        # Each move was followed in a process of its own, one after the other, and the last is what stays.
        eventually(lambda: aliases() == {"champion": "1"}, 60)
        assert move("challenge", version="2", mode="canary", share=0.5).is_success
        eventually(lambda: aliases() == {"champion": "1", "challenger": "2"}, 60)
    finally:
        assert stop_server(server) == 0
