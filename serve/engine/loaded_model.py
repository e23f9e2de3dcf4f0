"""A version of a task's model in memory, ready to answer."""

from __future__ import annotations

from export.bundle import Bundle
from export.session import OnnxSession
from models.tasks.base import Task
from serve.engine.batcher import Batcher
from serve.engine.token_cache import RememberingEncoder


class LoadedVersion:
    """A bundle ready to answer: its session, its task, its encoder and its batcher."""

    def __init__(
        self,
        version: str,
        path: str,
        bundle: Bundle,
        task: Task,
        session: OnnxSession,
        encoder: RememberingEncoder,
        batcher: Batcher,
    ):
        self.version = version
        self.path = path
        self.bundle = bundle
        self.task = task
        self.session = session
        self.encoder = encoder
        self.batcher = batcher
