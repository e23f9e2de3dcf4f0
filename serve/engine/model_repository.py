"""The released versions of one task in memory: loaded, warmed, swapped and retired as the release changes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from export.bundle import Bundle
from export.errors import BundleError
from export.model import Model
from models.releases.release import Release, read_release
from models.tasks.base import Task
from serve.config import Config
from serve.engine.admission import Admission
from serve.engine.batcher import Batcher
from serve.engine.loaded_model import LoadedVersion
from serve.engine.release_watcher import ReleaseWatcher, one_line
from serve.engine.routing import Router
from serve.engine.token_cache import CachingEncoder
from serve.engine.wishes import WishReader
from serve.metrics import Metrics, ModelInfo

log = logging.getLogger("flywheel.replica")

_STEP_EVERY_S = 1.0
_MAX_OUTPUT_CACHE = 32 * 2**20  # bytes of a version in each replica; 10,000 outputs of 2,000 labels would take 80 MB
_RETIRE_AFTER_S = 1.0  # requests that chose a version a moment ago may not have queued their texts yet


class ModelRepository:
    """Keeps `router` in line with the task's release file. Call its methods, other than `start`, on the event loop.

    The constructor raises any error of loading the champion, of onnxruntime, the disk or memory.
    """

    def __init__(self, task: type[Task], config: Config, admission: Admission, metrics: Metrics):
        self._task = task
        self._config = config
        self._options = config.task_options(task.name)
        self._admission = admission
        self._metrics = metrics
        # One thread: a model runs one batch at a time, and what arrives meanwhile becomes the next batch.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model", initializer=_lower_priority)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="release")  # for what may wait for the disk
        self._watcher: asyncio.Task[None] | None = None
        self._meter: asyncio.Task[None] | None = None
        self.router, _ = self._load(read_release(config.home, task.name), {})  # the watcher logs omitted versions

    def start(self) -> None:
        """Start the versions' batchers and watch the release. Call it in a running event loop."""
        for version in self.router.versions.values():
            version.batcher.start()
        self._metrics.loaded(_infos(self.router))
        self._watcher = asyncio.create_task(self._watch(), name="release-watcher")
        self._meter = asyncio.create_task(self._measure(), name="backlog-meter")

    async def stop(self) -> None:
        for task in (self._watcher, self._meter):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(version.batcher.stop() for version in self.router.versions.values()))
        for executor in (self._executor, self._disk):
            executor.shutdown(wait=False)

    @property
    def alive(self) -> bool:
        """False when a batcher's worker or the watcher has died: the replica must then be replaced."""
        watches = self._watcher is not None and not self._watcher.done()
        return watches and all(version.batcher.alive for version in self.router.versions.values())

    @property
    def backlog_s(self) -> float:
        """Seconds of queued work, summed over the versions, which share the model's thread."""
        return sum(version.batcher.backlog_s for version in self.router.versions.values())

    async def apply(self, release: Release) -> str:
        """Load the new release beside the old one, swap, then retire the old one.

        Returns a sentence about versions that could not be loaded, else "". Raises when the champion could not.
        """
        old = self.router
        loop = asyncio.get_running_loop()
        new, left_out = await loop.run_in_executor(self._disk, self._load, release, old.versions)
        if new.release == old.release:
            return left_out
        for name, version in new.versions.items():
            if version is not old.versions.get(name):
                version.batcher.start()
        self.router = new
        self._metrics.loaded(_infos(new))
        log.warning("%s now serves version %s", self._task.name, release.champion)
        await asyncio.gather(*(_retire(v) for name, v in old.versions.items() if new.versions.get(name) is not v))
        return left_out

    async def _watch(self) -> None:
        watcher = ReleaseWatcher(self._config.home, self._task.name, self.apply, self._disk)
        while True:
            await asyncio.sleep(_STEP_EVERY_S)
            await watcher.step()

    async def _measure(self) -> None:
        """Apart from the watcher, which may wait for a disk."""
        while True:
            await asyncio.sleep(_STEP_EVERY_S)
            batchers = [version.batcher for version in self.router.versions.values()]
            waiting, oldest = sum(batcher.waiting for batcher in batchers), max(b.oldest_s() for b in batchers)
            self._metrics.waiting(waiting, self.backlog_s, oldest)

    def _load(self, release: Release, loaded: dict[str, LoadedVersion]) -> tuple[Router[LoadedVersion], str]:
        """A router for `release`, reusing the versions in `loaded`. Blocks while it loads and warms up the others.

        Raises the champion's error when it cannot be loaded. Any other version that fails is left out; the returned
        sentence says why, "" when none failed.
        """
        versions, failed = {}, {}
        for name, path in release.versions.items():
            current = loaded.get(name)
            try:
                versions[name] = current if current and current.path == path else self._load_version(name, path)
            except Exception as error:
                if name == release.champion:
                    raise
                failed[name] = f"version {name} is left out: {one_line(error)}"
        if failed:
            changes: dict[str, Any] = {"versions": {name: release.versions[name] for name in versions}}
            if release.challenger in failed:
                changes |= {"challenger": None, "mode": None, "share": 0.0}
            release = release.model_copy(update=changes)
        return Router(release, versions), "; ".join(failed.values())

    def _load_version(self, name: str, path: str) -> LoadedVersion:
        bundle = Bundle.open(self._config.home / path)
        if bundle.manifest.task != self._task.name:
            raise BundleError(f"The bundle {path} is for {bundle.manifest.task}, not {self._task.name}.")
        settings = self._config.session
        model = Model.open(
            bundle,
            providers=settings.providers,
            threads=settings.threads,
            gpu=settings.gpu,
            shared=True,
            early_answers=self._config.tasks[self._task.name].early_answers == "auto",
        )
        seconds_per_token = model.warm_up()
        task = self._task(bundle, self._options)
        batching, cache_size = self._config.batching, self._config.cache.texts
        encoder = CachingEncoder(model.encoder, bundle.manifest.max_length, cache_size)
        batcher = Batcher(
            lambda rows: task.activate(model.run(rows)),
            self._executor,
            batching.model_copy(update={"tokens": batching.max_tokens(auto=model.batch_tokens)}),
            self._metrics,
            name,
            observe_wait=self._admission.observe_wait,
            cache_size=cached_outputs(cache_size, len(bundle.manifest.labels)),
            inline=not model.on_gpu,
            seconds_per_token=seconds_per_token,
            padding_cost=model.padding_cost,
        )
        wishes = None
        if task.wishes is not None and model.readers is not None:
            wishes = WishReader(task.wishes, model, encoder, batcher, cache_size)
        return LoadedVersion(name, path, bundle, task, model, encoder, batcher, wishes)


def _infos(router: Router[LoadedVersion]) -> dict[str, ModelInfo]:
    return {
        name: ModelInfo(version.model.provider, version.bundle.manifest.precision, version.bundle.manifest.created)
        for name, version in router.versions.items()
    }


def cached_outputs(texts: int, labels: int) -> int:
    """The number of outputs to cache of the `texts` that are configured: an output has 4 bytes a label."""
    return min(texts, _MAX_OUTPUT_CACHE // (4 * max(labels, 1)))


def _lower_priority() -> None:
    """Give the event loop priority over the model's thread: with few cores, refusals would wait for the model."""
    if sys.platform == "linux":  # where priorities are per thread
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + 10)


async def _retire(version: LoadedVersion) -> None:
    await asyncio.sleep(_RETIRE_AFTER_S)
    await version.batcher.stop()
