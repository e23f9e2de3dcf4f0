"""What a disk refuses is a sentence that says what to do, from whichever library it comes."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from models.disk_errors import sentence_of
from tests.helpers.command import flywheel, refused

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def error_of(act: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever the library raises
        act()
    return caught.value


def write() -> None:
    with open("/dev/full", "w") as file:  # never by a library that replaces the file
        file.write("x")


def write_rows(folder: Path) -> None:
    database = sqlite3.connect(folder / "small.db")
    database.execute("PRAGMA max_page_count = 2")
    database.execute("CREATE TABLE t (x)")
    database.execute("INSERT INTO t VALUES (?)", ["x" * 100_000])


@needs_full
def test_no_room_whoever_says_it(tmp_path: Path) -> None:
    for act in (write, lambda: write_rows(tmp_path)):
        assert "No space left on device. Make room where" in str(sentence_of(error_of(act)))


def test_of_a_copy_the_target_is_named() -> None:
    error = OSError(
        errno.ENOSPC, "No space left on device", "/bundles/1", None, "/full/1"
    )  # as shutil.copyfile raises it
    assert str(sentence_of(error)).startswith("/full/1: No space left")


@needs_full
def test_the_cause_of_another_error_is_found() -> None:
    def wrap() -> None:
        try:
            write()
        except OSError as error:
            raise RuntimeError("the export failed") from error

    assert "No space left" in str(sentence_of(error_of(wrap)))


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sentence = str(sentence_of(error_of((tmp_path / "file" / "folder").mkdir)))
    assert sentence.startswith(f"{tmp_path / 'file' / 'folder'}: Not a directory. A file is where a folder is needed")


def test_a_bug_stays_a_bug() -> None:
    assert sentence_of(error_of(lambda: int("x"))) is None
    assert sentence_of(FileNotFoundError(2, "No such file or directory", "x")) is None


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="this system has no /sys, in which not even root makes folders")
def test_a_home_that_cannot_be_written_is_a_sentence() -> None:
    sentence = refused(flywheel("promote", "intent", "1", home=Path("/sys/flywheel")))
    assert "/sys/flywheel" in sentence
    assert "FLYWHEEL_HOME=" in sentence


def test_a_home_that_is_a_file_is_a_sentence(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    assert "A file is where a folder is needed" in refused(flywheel("promote", "intent", "1", home=home))
