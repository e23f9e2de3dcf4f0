"""The release watcher: every release is applied in the end, and no error on the way stops it."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.releases.release import Release, write_release
from serve.engine import release_watcher
from serve.engine.release_watcher import ReleaseWatcher


class Fail(Exception):
    """As onnxruntime's: derived from Exception and from nothing else."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write(tmp_path, "1")
    return tmp_path


def write(home: Path, champion: str) -> None:
    write_release(home, Release(task="intent", champion=champion, versions={champion: "a bundle"}))


def outcomes(home: Path, *results: Exception | str, pause_s: float = 0.0) -> list[str]:
    """The champions that were tried while each `step` meets the next of `results`."""
    tried, left = [], list(results)

    async def apply(release: Release) -> str:
        tried.append(release.champion)
        result = left.pop(0) if left else ""
        if isinstance(result, Exception):
            raise result
        return result

    async def look() -> None:
        watcher = ReleaseWatcher(home, "intent", apply, ThreadPoolExecutor(1))
        for _ in range(len(results) + 2):
            await watcher.step()
            await asyncio.sleep(pause_s)

    asyncio.run(look())
    return tried


@pytest.mark.parametrize("error", [OSError("the disk"), Fail("INVALID_PROTOBUF"), RuntimeError("odd"), MemoryError()])
def test_what_could_not_be_loaded_is_tried_again_until_it_is_served(
    home: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(release_watcher, "RETRY_AFTER_S", 0.0)
    assert outcomes(home, error, error, "version 2 is left out") == ["1"] * 4  # and not a fifth time
    assert [type(error).__name__ in record.message for record in caplog.records] == [True]


def test_between_two_tries_there_is_a_pause(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcomes(home, "left out", "left out") == ["1"]
    monkeypatch.setattr(release_watcher, "RETRY_AFTER_S", 0.05)
    assert outcomes(home, "left out", pause_s=0.1) == ["1", "1"]


def test_a_new_release_is_not_made_to_wait_by_one_that_failed(home: Path) -> None:
    tried = []

    async def apply(release: Release) -> str:
        tried.append(release.champion)
        return "left out" if release.champion == "1" else ""

    async def follow() -> None:
        watcher = ReleaseWatcher(home, "intent", apply, ThreadPoolExecutor(1))
        await watcher.step()
        write(home, "2")
        for _ in range(3):
            await watcher.step()
        (home / "releases" / "intent.json").unlink()
        await watcher.step()
        write(home, "3")
        await watcher.step()

    asyncio.run(follow())
    assert tried == ["1", "2", "3"]


def test_a_disk_that_does_not_answer_holds_up_no_one_else(home: Path) -> None:
    """A pipe without a writer: its reader hangs, as on a network disk that is gone."""
    file, applied = home / "releases" / "intent.json", []
    release = file.read_bytes()
    file.unlink()
    os.mkfifo(file)

    async def apply(release: Release) -> str:
        applied.append(release.champion)
        return ""

    async def follow() -> None:
        step = asyncio.create_task(ReleaseWatcher(home, "intent", apply, ThreadPoolExecutor(1)).step())
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not step.done()
        await asyncio.to_thread(file.write_bytes, release)
        await step

    asyncio.run(asyncio.wait_for(follow(), 10))
    assert applied == ["1"]
