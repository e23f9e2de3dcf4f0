"""Where files are below the home, and how those are written that several processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from export.files import exclusive_lock, write_atomically
from models import home as layout
from models.feedback.store import Store

COUNT = """
import sys
from pathlib import Path
from export.files import exclusive_lock
for _ in range(200):
    with exclusive_lock(Path(sys.argv[1])) as file:
        file.seek(0)
        number = int(file.read() or 0) + 1
        file.truncate(0)
        file.write(b"%d" % number)
"""
FILL = """
import resource, sys
from pathlib import Path
from export.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a full disk, for this process alone
write_atomically(Path(sys.argv[1]), b"new" * 1000)
"""


@pytest.mark.parametrize("name", ["a b", "50%25", "100%", "a%20b", "what?x=1", "a#b", 'Jürgen\'s "home"', "a;b&c@d:e"])
def test_a_home_of_any_characters_holds_its_databases(tmp_path: Path, name: str) -> None:
    database = layout.feedback_database(tmp_path / name)
    Store.open(layout.sqlite_url(database)).close()
    assert database.is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_places_are_those_that_homes_have(tmp_path: Path) -> None:
    """A home of before must be found again: no name here may change without a migration."""
    found = [
        layout.bundle_folder(tmp_path, "intent", "2"),
        layout.checkpoint_folder(tmp_path, "intent", "2"),
        layout.corpus_file(tmp_path, "intent", "ac03"),
        layout.release_file(tmp_path, "intent"),
        layout.aliased_release_file(tmp_path, "intent"),
        layout.release_lock(tmp_path, "intent"),
        layout.progress_file(tmp_path, "intent"),
        layout.gate_report_file(tmp_path, "intent", "2"),
        layout.audit_outbox_file(tmp_path, "intent"),
        layout.work_folder(tmp_path),
        layout.feedback_database(tmp_path),
        layout.user_secret_file(tmp_path),
        layout.mlflow_database(tmp_path),
        layout.mlflow_artifacts(tmp_path),
        layout.server_lock(tmp_path),
    ]
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "bundles/intent/2",
        "checkpoints/intent/2",
        "corpora/intent/ac03.jsonl",
        "releases/intent.json",
        "releases/intent.aliased",
        "releases/intent.lock",
        "retraining/intent.json",
        "gates/intent/2.json",
        "audit/intent.jsonl",
        "work",
        "feedback.db",
        "secret",
        "mlflow.db",
        "mlartifacts",
        "server.lock",
    ]


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "down" / "file.json"
    write_atomically(file, b"old")
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_atomically(file, b"old")
    done = subprocess.run([sys.executable, "-c", FILL, str(file)], capture_output=True, text=True, check=False)
    assert "OSError" in done.stderr
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    contents = (b"a" * 300_000, b"b" * 200_000)
    write_atomically(file, contents[0])

    def write() -> None:
        for turn in range(50):
            write_atomically(file, contents[turn % 2])

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add(file.read_bytes())
    writer.join()
    assert seen <= set(contents)


def test_a_lock_keeps_processes_apart(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "count"
    running = [subprocess.Popen([sys.executable, "-c", COUNT, str(file)]) for _ in range(3)]
    assert [process.wait(30) for process in running] == [0, 0, 0]
    assert file.read_bytes() == b"600"


def test_a_lock_keeps_threads_apart(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    entered = threading.Event()

    def enter() -> None:
        with exclusive_lock(lock):
            entered.set()

    thread = threading.Thread(target=enter)
    with exclusive_lock(lock):
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(5)
    thread.join()


def test_drafts_of_killed_writers_go_with_the_next_write(tmp_path: Path) -> None:
    file = tmp_path / "intent.json"
    old, new, other = (
        tmp_path / name for name in (".intent.json.0123abcd", ".intent.json.4567cdef", ".other.0123abcd")
    )
    for draft in (old, new, other):
        draft.write_text("half")
    for draft in (old, other):
        os.utime(draft, (0, 0))
    write_atomically(file, b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"intent.json", new.name, other.name}
