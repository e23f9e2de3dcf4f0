"""What is said of a retraining while it runs, when it has ended, and when it was killed."""

from __future__ import annotations

from pathlib import Path

from models.training.progress import ProgressFile, read_progress


def test_before_the_first_run_there_is_none(tmp_path: Path) -> None:
    assert read_progress(tmp_path, "intent", running=False) == {"state": "never"}
    assert read_progress(tmp_path, "intent", running=True) == {"state": "running"}


def test_a_run_is_followed_to_its_end(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path, "intent")
    progress("training", 1, 10)
    progress("training", 2, 10)  # within the second
    now = read_progress(tmp_path, "intent", running=True)
    assert (now["state"], now["stage"], now["done"], now["total"]) == ("running", "training", 1, 10)
    assert now["stage_seconds_left"] >= 0
    progress("judging", 0, 0)
    assert read_progress(tmp_path, "intent", running=True)["stage_seconds_left"] is None
    progress.end("refused", "It is worse.", None)
    ended = read_progress(tmp_path, "intent", running=False)
    assert (ended["state"], ended["sentence"], ended["version"]) == ("refused", "It is worse.", None)


def test_a_run_that_was_killed_is_not_said_to_run(tmp_path: Path) -> None:
    ProgressFile(tmp_path, "intent")("training", 1, 10)
    found = read_progress(tmp_path, "intent", running=False)
    assert (found["state"], found["stage"]) == ("interrupted", "training")


def test_a_place_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    (tmp_path / "retraining").write_text("a file where the folder should be")
    ProgressFile(tmp_path, "intent")("training", 1, 10)
    assert read_progress(tmp_path, "intent", running=True) == {"state": "running"}
