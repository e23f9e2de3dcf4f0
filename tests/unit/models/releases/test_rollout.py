"""Moves of a release: what each changes, what it leaves in the audit log, and which are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models.feedback.store import Store
from models.releases import audit_outbox
from models.releases.release import (
    Release,
    ReleaseChanged,
    ReleaseError,
    awaits_encoder,
    read_release,
    release_file,
)
from models.releases.rollout import Rollout
from models.retraining.plan import not_yet


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
    entries = rollout.store.audit.entries("intent")
    assert [entry.action for entry in reversed(entries)] == ["promote", "shadow", "canary", "promote", "rollback"]
    assert {entry.actor for entry in entries} == {"a test"}
    assert entries[0].reason == "worse after all"
    assert entries[0].detail == {"withdrawn": "2"}


def test_a_rollback_withdraws_the_challenger_first(rollout: Rollout) -> None:
    rollout.promote("2", "next")
    rollout.challenge("3", "canary", 0.5, "try")
    assert rollout.rollback("bad").champion == "2"
    assert rollout.rollback("bad as well").champion == "1"
    with pytest.raises(ReleaseError, match="nothing to go back to"):
        rollout.rollback("once more")


def without_encoder(home: Path, version: str) -> None:
    bundle = home / "bundles" / "intent" / version
    fields = {"task": "intent", "kind": "classifier", "labels": ["a"], "max_length": 16, "precision": "fp32"}
    other = {"format": 4, "base_model": "-", "data": {}, "created": "-", "files": {}, "has_encoder": False}
    manifest = {**fields, **other}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_first_version_is_compared_with_nothing_and_may_be_returned_to(rollout: Rollout) -> None:
    without_encoder(rollout.home, "1")
    shutil.rmtree(rollout.home / "bundles" / "intent" / "3")
    for challenger, champion in (("2", "1"), ("1", "2")):
        rollout.promote(champion, "next")
        with pytest.raises(ReleaseError, match="version 1 is the first, quick one"):
            rollout.challenge(challenger, "canary", 0.5, "try")
    assert rollout.rollback("bad").champion == "1"
    assert not awaits_encoder(rollout.home, "intent")  # the operator has decided
    assert not_yet(rollout.home, "intent")
    shutil.rmtree(rollout.home / "bundles" / "intent" / "2")
    assert awaits_encoder(rollout.home, "intent")


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
    assert rollout.store.audit.entries("intent")[0].detail == {"withdrawn": "2"}


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
    assert rollout.store.audit.entries("intent")[0].action == "promote"
    with kept.open("ab") as file:
        file.write(b'{"at": "20')  # a crash, while another was written
    assert Rollout(rollout.home, unreachable, "intent", "ops").promote("3", "next").champion == "3"
    lines = kept.read_bytes()

    audit_outbox.flush(rollout.home, "intent", rollout.store)
    entries = rollout.store.audit.entries("intent")
    assert [(entry.action, entry.version, entry.actor, entry.reason) for entry in entries[:2]] == [
        ("promote", "3", "ops", "next"),
        ("rollback", "1", "ops", "now"),
    ]
    assert entries[1].detail == {"withdrawn": "2"}
    kept.write_bytes(lines)  # as a crash leaves it between the transaction and the file
    audit_outbox.flush(rollout.home, "intent", rollout.store)
    assert rollout.store.audit.entries("intent") == entries
    assert kept.stat().st_size == 0


def test_an_entry_that_an_earlier_flywheel_left_on_its_way_arrives(rollout: Rollout) -> None:
    kept = rollout.home / "audit" / "intent.jsonl"
    old = {"at": "2026-05-01T12:00:00+00:00", "task": "intent", "action": "rollback", "version": "1"}
    kept.write_text(json.dumps(old | {"who": "ops", "why": "worse", "detail": {}}) + "\n[1]\n")
    audit_outbox.flush(rollout.home, "intent", rollout.store)
    entry = rollout.store.audit.entries("intent")[0]
    assert (entry.action, entry.actor, entry.reason) == ("rollback", "ops", "worse")
