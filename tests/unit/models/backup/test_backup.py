"""A home is copied as a whole, at one moment, and comes back as it was; or there is a sentence and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.backup.archive import BackupError, open_archive
from models.backup.backup import BackupResult, back_up
from models.backup.databases import copy_database
from models.backup.restore import check_is_empty, restore
from models.feedback.store import Store
from models.home import feedback_database, mlflow_artifacts, mlflow_database, restoring_folder, sqlite_url
from models.releases.release import Release, write_release
from tests.helpers.command import ROOT, flywheel, refused
from tests.helpers.disks import own_memory
from tests.helpers.store_fixtures import add, correction
from tests.helpers.tiny_readers import release_tiny, tiny_bundle, tiny_home


def ignore(*_: object) -> None:
    pass


def backed_up(home: Path, destination: Path, *, small: bool = False) -> BackupResult:
    return back_up(home, sqlite_url(feedback_database(home)), destination, ignore, small=small)


def restored(archive: Path, home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    restore(archive, home, ignore)
    return home


def contents(home: Path) -> dict[str, bytes]:
    apart = re.compile(r"(feedback|mlflow)\.db.*|.*\.lock")
    found = (path for path in home.rglob("*") if path.is_file() and not apart.fullmatch(path.name))
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in found}


def corrections(home: Path) -> list[str]:
    store = Store.open(sqlite_url(feedback_database(home)))
    texts = sorted(sample.text for sample in store.queue.lease("intent", "me", 9, 60))
    store.close()
    return texts


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with two versions, two corrections, and whatever else a home has."""
    home = tiny_home(tmp_path / "home")
    tiny_bundle(home / "bundles" / "intent" / "2")
    for name in (
        "checkpoints/intent/1/model.safetensors", "checkpoints/intent/1/training/training.json",
        "checkpoints/intent/2/model.safetensors", "checkpoints/intent/1/.mlflow", "corpora/intent/f00.jsonl",
        "gates/intent/2.json", "audit/intent.jsonl", "mlartifacts/intent/run/artifacts/bundle/model.onnx",
        "encoders/sentence/manifest.json", "what/a later Flywheel/keeps",
    ):  # fmt: skip
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    (home / "secret").write_text("k" * 64)
    (home / "secret").chmod(0o600)
    store = Store.open(sqlite_url(feedback_database(home)))
    add(store, correction(text="one"), correction(text="two"))
    store.close()
    return home


def test_a_home_comes_back_as_it_was(home: Path, tmp_path: Path) -> None:
    done = backed_up(home, tmp_path / "a.tar")
    assert done.notes == []
    assert done.archive.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "home"]
    copy = restored(done.archive, tmp_path / "copy")
    assert contents(copy) == contents(home)
    assert (copy / "secret").stat().st_mode & 0o777 == 0o600
    assert corrections(copy) == ["one", "two"]


def test_a_home_of_one_user_stays_closed_to_others(home: Path, tmp_path: Path) -> None:
    home.chmod(0o750)
    copy = restored(backed_up(home, tmp_path / "a.tar").archive, tmp_path / "copy")
    assert copy.stat().st_mode & 0o777 == 0o750


def test_what_is_derived_or_under_way_is_left_out(home: Path, tmp_path: Path) -> None:
    before = set(contents(home))
    for name in (
        "bundles/intent/.packed/1/weights.bin", "bundles/intent/.engines/x", "work/intent-abcdefgh/model.safetensors",
        "retraining/intent.json", "training/intent.json", "releases/intent.lock", "releases/intent.aliased",
        "server.lock", "cache/x", "corpora/intent/.f00.jsonl.0a1b2c3d", ".secret-xyz",
    ):  # fmt: skip
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    assert set(contents(restored(backed_up(home, tmp_path).archive, tmp_path / "copy"))) == before


def test_a_small_backup_serves_and_tells_mlflow_nothing_twice(home: Path, tmp_path: Path) -> None:
    release_tiny(home, "2")
    names = set(contents(restored(backed_up(home, tmp_path, small=True).archive, tmp_path / "copy")))
    left_out = {"mlartifacts/intent/run/artifacts/bundle/model.onnx", "checkpoints/intent/1/model.safetensors"}
    assert names == set(contents(home)) - left_out


def test_linked_folders_are_followed_once(home: Path, tmp_path: Path) -> None:
    os.rename(home / "corpora", tmp_path / "elsewhere")
    (home / "corpora").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(home)
    copy = restored(backed_up(home, tmp_path / "a.tar").archive, tmp_path / "copy")
    assert (copy / "corpora" / "intent" / "f00.jsonl").is_file()
    assert not (copy / "corpora").is_symlink()
    assert not (copy / "corpora" / "again").exists()


def test_a_store_of_another_name_is_copied_as_a_database(home: Path, tmp_path: Path) -> None:
    os.rename(feedback_database(home), home / "own.db")
    (home / "own.db-wal").write_bytes(b"")
    back_up(home, sqlite_url(home / "own.db"), tmp_path / "a.tar", ignore)
    copy = restored(tmp_path / "a.tar", tmp_path / "copy")
    assert corrections(copy) == ["one", "two"]
    assert not list(copy.glob("own.db*"))


def test_the_store_is_copied_at_one_moment_while_it_is_written_to(tmp_path: Path) -> None:
    """Two tables that every transaction changes together: a copy has as many rows of each."""
    source = tmp_path / "a.db"
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript("CREATE TABLE one (x); CREATE TABLE two (x);")
        connection.execute("INSERT INTO one VALUES (randomblob(40000000))")
        connection.execute("INSERT INTO two VALUES (0)")
        connection.commit()
    stop, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        with closing(sqlite3.connect(source, timeout=1)) as connection:
            while not stop.is_set():
                with connection:
                    connection.execute("INSERT INTO one VALUES (1)")
                    connection.execute("INSERT INTO two VALUES (1)")
                written += 1

    thread = threading.Thread(target=write)
    thread.start()
    steps: list[int] = []
    try:
        copy_database(source, tmp_path / "b.db", lambda done, total: (time.sleep(0.02), steps.append(written))[1])
    finally:
        stop.set()
        thread.join()
    assert steps[-1] > steps[0]  # others wrote while it was copied
    with closing(sqlite3.connect(tmp_path / "b.db")) as connection:
        one, two = (connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("one", "two"))
        assert one == two
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("before", ["the home", "where the home was before it was moved"])
def test_mlflow_finds_its_artifacts_below_the_new_home(home: Path, tmp_path: Path, before: str) -> None:
    old = mlflow_artifacts(home if before == "the home" else Path("/elsewhere")).resolve().as_uri()
    with closing(sqlite3.connect(mlflow_database(home))) as connection, connection:
        connection.execute("CREATE TABLE runs (artifact_uri)")
        connection.execute("CREATE TABLE experiments (name, artifact_location)")
        connection.execute("INSERT INTO runs VALUES (?)", (f"{old}/intent/run/artifacts",))
        connection.execute("INSERT INTO runs VALUES ('file:///elsewhere/mlartifacts-old/x')")
        others = [("own", "s3://bucket/mlartifacts/own"), ("Default", "mlruns/0"), ("none", None)]
        connection.executemany("INSERT INTO experiments VALUES (?, ?)", [("intent", f"{old}/intent"), *others])
    copy = restored(backed_up(home, tmp_path / "a.tar").archive, tmp_path / "copy")
    with closing(sqlite3.connect(mlflow_database(copy))) as connection:
        new = mlflow_artifacts(copy).resolve().as_uri()
        runs = [row[0] for row in connection.execute("SELECT artifact_uri FROM runs")]
        assert runs == [f"{new}/intent/run/artifacts", "file:///elsewhere/mlartifacts-old/x"]
        found = connection.execute("SELECT * FROM experiments").fetchall()
    assert found == [("intent", f"{new}/intent"), *others]


def test_a_release_without_its_bundle_is_refused(home: Path, tmp_path: Path) -> None:
    write_release(home, Release(task="intent", champion="7", versions={"7": "bundles/intent/7"}))
    with pytest.raises(BackupError, match="names version 7, whose bundle is not in the home"):
        backed_up(home, tmp_path / "a.tar")
    assert os.listdir(tmp_path) == ["home"]


@pytest.mark.parametrize("place", ["home/a.tar", "there.tar", "no-folder/a.tar"])
def test_a_destination_that_cannot_be(home: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "there.tar").write_text("keep me")
    with pytest.raises(BackupError, match=r"lies in the home|exists already|is not a folder"):
        backed_up(home, tmp_path / place)
    assert (tmp_path / "there.tar").read_text() == "keep me"


def test_a_name_that_the_archive_cannot_keep_is_told_at_once(home: Path, tmp_path: Path) -> None:
    (home / "corpora" / os.fsdecode(b"caf\xe9.jsonl")).write_text("x")
    with pytest.raises(BackupError, match=r"is not UTF-8: .*corpora/caf.*No backup was made"):
        backed_up(home, tmp_path)
    assert os.listdir(tmp_path) == ["home"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with own_memory(tmp_path / "disk", 1) as disk:
        if disk is None:
            pytest.skip("needs a disk of its own, which this machine does not let us mount")
        yield disk.path


@pytest.mark.parametrize("seen", [True, False], ids=["seen before", "filled meanwhile"])
@pytest.mark.parametrize("large", ["corpora/intent/f00.jsonl", "feedback.db"])
def test_a_full_disk_leaves_nothing(
    home: Path, tmp_path: Path, small_disk: Path, seen: bool, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not seen:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    if large == "feedback.db":
        store = Store.open(sqlite_url(feedback_database(home)))
        add(store, *(correction(text=f"{number} " + "x" * 3000) for number in range(600)))
        store.close()
    else:
        (home / large).write_bytes(bytes(2 << 20))
    with pytest.raises(BackupError) as caught:
        backed_up(home, small_disk)
    assert str(caught.value).startswith(f"{small_disk} has no room for the backup, which needs ")
    assert os.listdir(small_disk) == []
    archive = backed_up(home, tmp_path / "a.tar").archive
    with pytest.raises(BackupError, match="Nothing was restored"):
        restore(archive, small_disk, ignore)
    assert os.listdir(small_disk) == []


KILLED = """
import sys, time
from pathlib import Path
from models.backup.backup import back_up
from models.home import feedback_database, sqlite_url
def report(stage, done, total):
    print(stage, flush=True)
    if stage == sys.argv[3]:
        time.sleep(60)
home = Path(sys.argv[1])
back_up(home, sqlite_url(feedback_database(home)), Path(sys.argv[2]), report)
"""


@pytest.mark.parametrize("stage", ["bundles", "feedback.db"])
def test_a_killed_backup_leaves_no_archive_and_its_rest_is_removed(home: Path, tmp_path: Path, stage: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(home), str(out / "a.tar"), stage],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.strip() == stage:
                break
        (draft,) = os.listdir(out)
        second = backed_up(home, out / "b.tar")  # does not touch the one that runs
        assert sorted(os.listdir(out)) == sorted([draft, "b.tar"])
        process.kill()
    assert not (out / "a.tar").exists()
    assert (out / draft).stat().st_mode & 0o077 == 0
    backed_up(home, out / "c.tar")
    assert sorted(os.listdir(out)) == ["b.tar", "c.tar"]
    restored(second.archive, tmp_path / "copy")


def test_a_damaged_archive_leaves_the_home_empty(home: Path, tmp_path: Path) -> None:
    archive = backed_up(home, tmp_path / "a.tar").archive
    whole = archive.read_bytes()
    at = whole.index(b"corpora/intent/f00.jsonl", whole.index(b"corpora/intent/f00.jsonl") + 1)  # its content
    archive.write_bytes(whole[:at] + b"x" + whole[at + 1 :])
    copy = tmp_path / "copy"
    copy.mkdir()
    with pytest.raises(BackupError, match=r"damaged: corpora/intent/f00\.jsonl"):
        restore(archive, copy, ignore)
    assert os.listdir(copy) == []


def test_a_newer_schema_is_refused(home: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(feedback_database(home))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    archive = backed_up(home, tmp_path / "a.tar").archive
    with pytest.raises(BackupError, match="schema 9999"):
        restored(archive, tmp_path / "copy")


def test_a_home_with_files_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="is not empty: it has audit, bundles, checkpoints, "):
        check_is_empty(home)
    check_is_empty(tmp_path / "none")


def test_the_commands(home: Path, tmp_path: Path) -> None:
    done = flywheel("backup", str(tmp_path), home=home)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("flywheel-*.tar")
    assert done.stdout.startswith(f"{archive}: ")
    copy = tmp_path / "copy"
    again = flywheel("restore", str(archive), "--home", str(copy), home=home)
    assert again.returncode == 0, again.stderr
    assert f"{copy}: restored, as it was on 20" in again.stdout
    assert "flywheel erasures --help" in again.stdout
    assert contents(copy) == contents(home)
    assert "is not empty" in refused(flywheel("restore", str(archive), home=home))
    assert "No such file" in refused(flywheel("restore", str(tmp_path / "none.tar"), home=tmp_path / "new"))


def test_a_home_whose_restore_was_interrupted_is_not_served(tmp_path: Path) -> None:
    restoring_folder(tmp_path).mkdir()
    assert "was interrupted" in refused(flywheel("up", home=tmp_path))


def test_postgresql_is_named_and_the_rest_is_copied(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_FEEDBACK__STORE", "postgresql://flywheel@127.0.0.1/none")
    done = flywheel("backup", str(tmp_path / "a.tar"), home=home)
    assert done.returncode == 0, done.stderr
    assert "pg_dump" in done.stderr
    with open_archive(tmp_path / "a.tar") as reader:
        assert "feedback.db" not in reader.files
        assert "bundles/intent/1/manifest.json" in reader.files


def test_erasures_after_the_backup_are_repeated(home: Path, tmp_path: Path) -> None:
    store = Store.open(sqlite_url(feedback_database(home)))
    add(store, correction(text="three", user="before"), correction(text="four", user="after"))
    store.privacy.erase("before")
    archive = backed_up(home, tmp_path / "a.tar").archive
    store.privacy.erase("after")
    store.close()
    listed = flywheel("erasures", home=home)
    assert [line.split('"')[3] for line in listed.stdout.splitlines()] == ["before", "after"]
    (tmp_path / "erasures.jsonl").write_text(listed.stdout)
    copy = restored(archive, tmp_path / "copy")
    done = flywheel("erasures", "--replay", str(tmp_path / "erasures.jsonl"), home=copy)
    assert done.returncode == 0, done.stderr
    assert "2 erasures are listed; erased now: 0 predictions, 1 corrections" in done.stdout
    assert corrections(copy) == ["one", "two"]


def test_a_list_may_be_replayed_again_and_users_may_come_back(home: Path) -> None:
    store = Store.open(sqlite_url(feedback_database(home)))
    store.privacy.erase("user")
    listed = store.privacy.erasures()
    add(store, correction(text="three", user="user", at=datetime.now(UTC) + timedelta(minutes=10)))
    assert store.privacy.replay(listed, actor="me", reason="again").feedback == 0
    later = [(user, at + timedelta(seconds=1)) for user, at in listed]
    assert store.privacy.replay(later, actor="me", reason="again").feedback == 1
    store.close()


def test_a_wrong_list_of_erasures_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text('{"user": "a"}\n')
    done = flywheel("erasures", "--replay", str(tmp_path / "list"), home=home)
    assert done.returncode == 2
    assert "line 1 is not a line of" in done.stderr
