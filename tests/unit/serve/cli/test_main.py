"""The command line: help, and sentences instead of tracebacks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.feedback.store import Store
from models.feedback.types import NewFeedback
from tests.helpers.command import Command, flywheel, free_port, refused

COMMANDS = (
    "up", "train", "export", "evaluate", "releases", "status", "predict", "bench",
    "feedback", "retrain", "challenge", "promote", "rollback", "dead-letters", "erase",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(run: Command, command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    usage, _, examples = done.stdout.partition("Example")
    assert f"flywheel {command}" in usage
    assert f"flywheel {command}" in examples


def test_help_lists_every_command() -> None:
    """In a process of its own, as a user starts it."""
    done = flywheel("--help")
    assert done.returncode == 0
    assert all(f" {command} " in done.stdout for command in COMMANDS)


def test_events_with_files_of_items_and_users_are_checked(run: Command, tmp_path: Path) -> None:
    rows = [f"u{user},i{item},rating,{item},{item * 3 % 5 + 1}" for user in range(3) for item in range(10)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,event,time,value", *rows, rows[-1]]))
    (tmp_path / "items.csv").write_text("\n".join(["item_id,text", *(f"i{at},Item {at}" for at in range(10))]))
    (tmp_path / "users.csv").write_text("user_id,age\nu1,30\n")
    files = [f"--{name}={tmp_path / f'{file}.csv'}" for name, file in (("items", "items"), ("users", "users"))]
    train = ("train", "recommendation", "--check", *files)
    done = run(*train, f"--data={tmp_path / 'events.csv'}", home=tmp_path / "home")
    assert done.stdout.splitlines() == [
        "events: 24 training rows, 6 in the holdout, 10 items",
        "note: 1 rows repeat another one: the same user, item, event and time. For instance: line 32. They count once.",
    ]
    assert "files of items and users need a file of events" in run(*train, home=tmp_path / "home").stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text,label\nhi,greet\n,greet\n", "line 3: the text is empty"),
        ("text,label\nhi\n", "line 2: there is no 'label'"),
        ("text,[label]\nhi,greet\n", "line 1: the header has no column 'label'; it has: text, [label]"),
        ("text,label,split\nhi,greet,[/x]\n", "line 2: split is '[/x]'"),
    ],
)
def test_a_bad_file_is_named_with_its_line(run: Command, content: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(content)
    found = refused(run("train", "intent", "--data", str(file), home=tmp_path / "home"))
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
        (("feedback", "intent", "pyproject.toml"), "jsonl file, not .toml"),
    ],
)
def test_a_mistake_is_a_sentence(run: Command, arguments: Sequence[str], sentence: str, tmp_path: Path) -> None:
    assert sentence in refused(run(*arguments, home=tmp_path))


def test_an_impossible_port_is_a_usage_error(run: Command, tmp_path: Path) -> None:
    done = run("up", "--port", "99999", home=tmp_path)
    assert done.returncode == 2
    assert "65535" in done.stderr


@pytest.mark.parametrize("command", [("status",), ("predict", "intent", "where is my order?")])
def test_without_a_server_they_say_how_to_start_one(run: Command, command: Sequence[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    found = refused(run(*command, "--url", url))
    assert found.startswith(f"No server answers at {url}")
    assert "Start one with: flywheel up" in found


@pytest.mark.parametrize("option", ["--reason", "--why"])  # --why: the option's name until 0.1
def test_dead_letters_are_listed_and_put_back(run: Command, tmp_path: Path, option: str) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'feedback.db'}")
    correction = NewFeedback("intent", "desk", True, datetime.now(UTC), "refund", text="where is [/it]?")
    assert store.feedback.add([correction], keep_days=30)[0].outcome == "accepted"
    [sample] = store.queue.lease("intent", "a", 9, 60)
    store.queue.give_back("a", reason="it was refused", failed=[sample.id])
    listed = run("dead-letters", "intent", home=tmp_path)
    assert "desk refund: where is [/it]?\n    it was refused\n" in listed.stdout
    done = run("dead-letters", "intent", "--requeue", option, "a wrong bound", home=tmp_path)
    assert "1 corrections wait again" in done.stdout
    assert store.feedback.counts("intent")["waiting"] == 1
    [entry] = store.audit.entries("intent")
    assert (entry.action, entry.reason, entry.detail) == ("requeue", "a wrong bound", {"corrections": 1})
    store.close()


def test_a_training_file_is_checked_without_training(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(
        "text;label\n" + "".join(f"text number {i} of [b];a{' ' * (i % 2)}\nother {i};b\n" for i in range(50))
    )
    done = run("train", "intent", "--data", str(file), "--check", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("own: ")
    assert first.endswith("in the holdout, 2 labels")
    assert [line.split(":")[0] for line in rest] == ["warning", "warning"]
    assert "'a ' is read as 'a'" in done.stdout
    assert not (tmp_path / "home").exists()
