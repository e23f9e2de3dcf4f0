"""What does not fit into a container is said at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.config import Config, LearningConfig, TaskConfig
from serve.rayserve import memory

TASKS = {
    "intent": TaskConfig(replicas=2),
    "sentiment": TaskConfig(replicas=1),
    "recommendation": TaskConfig(replicas=1),
}


@pytest.mark.parametrize(
    ("gigabytes", "automatic", "sentence"),
    [
        (1.0, True, "serving needs about 1.4 GB: processes will be killed"),
        (1.4, False, "tasks.<task>.replicas"),
        (1.6, True, "a retraining 1.5 GB more, which would be killed"),
        (1.6, False, ""),
        (3.5, True, ""),
    ],
)
def test_a_shortage_is_told(
    gigabytes: float, automatic: bool, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "usable_memory", lambda: int(gigabytes * 1e9))
    config = Config(home=tmp_path, tasks=TASKS, learning=LearningConfig(automatic=automatic))
    found = memory.shortage(config)
    assert sentence in found
    assert bool(found) == bool(sentence)


@pytest.mark.parametrize(("threads", "told"), [(100, True), (400, True), (1024, False), (float("inf"), False)])
def test_too_few_threads_are_told(threads: float, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_threads", lambda: threads)
    found = memory.few_threads(Config(tasks=TASKS))
    assert found.startswith(f"this process may have {threads:.0f} threads") if told else not found
