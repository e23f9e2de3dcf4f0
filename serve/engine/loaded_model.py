"""A version of a task's model in memory, ready to answer."""

from __future__ import annotations

from dataclasses import dataclass

from export.bundle import Bundle
from export.session import OnnxSession
from models.tasks.base import Task
from serve.engine.batcher import Batcher
from serve.engine.token_cache import CachingEncoder


@dataclass(frozen=True, slots=True, eq=False)
class LoadedVersion:
    """A bundle with its session, task, encoder and batcher; `path` is the bundle's, relative to the home directory."""

    version: str
    path: str
    bundle: Bundle
    task: Task
    session: OnnxSession
    encoder: CachingEncoder
    batcher: Batcher
