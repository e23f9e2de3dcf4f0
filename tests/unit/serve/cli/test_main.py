"""The command line: help, and sentences instead of tracebacks."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.feedback.store import Store
from models.feedback.types import NewFeedback
from tests.helpers.command import flywheel, free_port

COMMANDS = (
    "up", "train", "export", "releases", "status", "predict", "bench",
    "feedback", "retrain", "challenge", "promote", "rollback", "dead-letters", "erase",
)  # fmt: skip


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence of a command that failed as ours fail."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    done = flywheel(command, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert f"flywheel {command}" in done.stdout


def test_help_lists_every_command() -> None:
    done = flywheel("--help")
    assert done.returncode == 0
    assert all(f" {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text,label\nhi,greet\n,greet\n", "line 3: the text is empty"),
        ("text,label\nhi\n", "line 2: there is no 'label'"),
        ("text,[label]\nhi,greet\n", "line 1: the header has no column 'label'; it has: text, [label]"),
        ("text,label,split\nhi,greet,[/x]\n", "line 2: split is '[/x]'"),
    ],
)
def test_a_bad_file_is_named_with_its_line(content: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(content)
    found = refused(flywheel("train", "intent", "--data", str(file), home=tmp_path / "home"))
    assert found.startswith(f"{file}, {sentence}")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "nope"), "There is no task 'nope'; there are: intent, "),
        (("train", "intent", "--data", "nowhere.csv"), "nowhere.csv: cannot be read: No such file"),
        (("train", "recommendation", "--data", "pyproject.toml"), "give a .csv or .jsonl file, not .toml"),
        (("train", "intent", "--config", "nowhere.yaml"), "There is no configuration file nowhere.yaml"),
        (("promote", "nope", "1"), "There is no task 'nope'"),
        (("rollback", "intent"), "intent has no released version yet"),
        (("feedback", "intent", "nowhere.jsonl"), "nowhere.jsonl: cannot be read: No such file"),
        (("feedback", "intent", "pyproject.toml"), "pyproject.toml: not JSONL"),
        (("export", "intent", "9", "out"), "intent/9 is not a Flywheel checkpoint"),
    ],
)
def test_a_mistake_is_a_sentence(arguments: Sequence[str], sentence: str, tmp_path: Path) -> None:
    assert sentence in refused(flywheel(*arguments, home=tmp_path))


def test_an_impossible_port_is_a_usage_error(tmp_path: Path) -> None:
    done = flywheel("up", "--port", "99999", home=tmp_path)
    assert done.returncode == 2
    assert "65535" in done.stderr


@pytest.mark.parametrize("command", [("status",), ("predict", "intent", "where is my order?")])
def test_without_a_server_they_say_how_to_start_one(command: Sequence[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    found = refused(flywheel(*command, "--url", url))
    assert found.startswith(f"No server answers at {url}")
    assert "Start one with: flywheel up" in found


def test_dead_letters_are_listed_and_put_back(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'feedback.db'}")
    correction = NewFeedback("intent", "desk", True, datetime.now(UTC), "refund", text="where is [/it]?")
    assert store.feedback.add([correction], keep_days=30)[0].outcome == "accepted"
    [sample] = store.queue.lease("intent", "a", 9, 60)
    store.queue.give_back("a", reason="it was refused", failed=[sample.id])
    listed = flywheel("dead-letters", "intent", home=tmp_path)
    assert "desk refund: where is [/it]?\n    it was refused\n" in listed.stdout
    done = flywheel("dead-letters", "intent", "--requeue", "--why", "a wrong bound", home=tmp_path)
    assert "1 corrections wait again" in done.stdout
    assert store.feedback.counts("intent")["waiting"] == 1
    [entry] = store.audit.entries("intent")
    assert (entry.action, entry.reason, entry.detail) == ("requeue", "a wrong bound", {"corrections": 1})
    store.close()
