"""One replica of a task: the released versions in memory, and a request answered from request to predictions."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from export.bundle import Bundle
from export.errors import BundleError
from export.session import OnnxSession
from models.feedback.pseudonyms import UserHasher
from models.feedback.types import LoggedPrediction
from models.releases.release import Release, read_release
from models.tasks.base import Prediction, get_task
from serve.config import Config
from serve.engine.admission import Admission
from serve.engine.batcher import Batcher
from serve.engine.ids import new_id
from serve.engine.loaded_model import LoadedVersion
from serve.engine.release_watcher import Follower, one_line
from serve.engine.routing import Router
from serve.engine.shadow import Shadow
from serve.engine.token_cache import RememberingEncoder
from serve.errors import DeadlineExceeded, InvalidRequest, NotReady, Overloaded
from serve.feedback.writer import Recorder, now
from serve.metrics import Metrics

log = logging.getLogger("flywheel.replica")

_FOLLOW_EVERY_S = 1.0
_LEAST_TOKENS = 3  # a word between the two that begin and end each text


class Replica:
    """The versions of one task in this process. Knows nothing of HTTP and nothing of Ray."""

    def __init__(self, task: str, config: Config):
        self.task = get_task(task)
        self._config = config
        self._options = config.task_options(task)
        self._logged = [tensor.name for tensor in self.task.outputs]  # of each prediction
        self.metrics = Metrics(task)
        # One thread: a model runs one batch at a time, and what arrives meanwhile becomes the next batch.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model", initializer=_step_back)
        self._admission = Admission(config.limits.wait_s)
        self.recorder = self._recorder()
        self._router, _ = self._load(read_release(config.home, task), {})  # the follower tells what is left out
        self._shadow = Shadow(self.metrics, self._logged[0], config.limits.deadline_s)
        self._follower: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()  # kept: asking for it is a system call
        for version in self._router.versions.values():
            version.batcher.start()
        self.metrics.loaded(self._router.versions)
        self._follower = asyncio.create_task(self._follow(), name="follower")
        self.recorder.start()

    async def stop(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
        await asyncio.gather(*(version.batcher.stop() for version in self._router.versions.values()))
        self._executor.shutdown(wait=False)
        await asyncio.to_thread(self.recorder.stop)

    @property
    def body_limit(self) -> int:
        return self._config.limits.body_bytes

    @property
    def alive(self) -> bool:
        """False when a batcher's worker or the follower has died: the replica must then be replaced."""
        follows = self._follower is not None and not self._follower.done()
        return follows and all(version.batcher.alive for version in self._router.versions.values())

    @property
    def config(self) -> Config:
        return self._config

    @property
    def release(self) -> Release:
        """The release that is served now: the file's, without what of it could not be loaded."""
        return self._router.release

    def choose(self, pinned: str | None, user: str | None = None) -> LoadedVersion:
        """Raises NotFound for a version that is not loaded."""
        return self._router.choose(pinned, user)

    @property
    def longest_s(self) -> float:
        """Seconds that a request may take, whatever its client asks for."""
        return self._config.limits.deadline_s

    @property
    def backlog_s(self) -> float:
        """Seconds of work that wait for the model. The versions share its thread, so they add up."""
        return sum(version.batcher.backlog_s for version in self._router.versions.values())

    async def answer(
        self,
        version: LoadedVersion,
        request: Any,
        deadline: float,
        left: Callable[[], bool] = bool,
        user: str | None = None,
    ) -> dict[str, Any]:
        """The predict answer to a validated request. Raises a RequestError the client can act on.

        `deadline` is on the clock of time.monotonic. `left` tells whether the client is gone: it is asked before its
        texts run. `user` is who asks, for the log.
        """
        if not version.batcher.alive:
            raise NotReady("the model's worker has died; the replica is being replaced", retry_after=5)
        texts = version.task.texts(request)
        self._admit(texts, version, deadline)
        started = time.perf_counter()
        encoded = await version.encoder.encode(texts)
        self.metrics.stage(version.version, "tokenize", time.perf_counter() - started)
        output = await version.batcher.submit([row.ids for row in encoded], deadline, left)
        predictions = version.task.decode(request, output, [row.truncated for row in encoded])
        id_ = new_id()
        self.once_answered(self._log, id_, version, request, texts, predictions, user)
        if (challenger := self._router.shadow) is not None and version is not challenger:
            self._shadow.compare(challenger, request, texts, predictions, busy=self.backlog_s > 0)
        return {
            "id": id_,
            "model_name": self.task.name,
            "model_version": version.version,
            "predictions": predictions,
        }

    def once_answered(self, do: Callable[..., object], *arguments: Any) -> None:
        """Call `do` in the event loop's next turn: the answer that is being made is sent before that."""
        self._loop.call_soon(do, *arguments)

    def _log(
        self,
        id_: str,
        version: LoadedVersion,
        request: Any,
        texts: Sequence[str],
        predictions: Sequence[Prediction],
        user: str | None,
    ) -> None:
        if not self._config.feedback.log.sample:
            return
        kept = [{name: prediction[name] for name in self._logged} for prediction in predictions]
        input_ = version.task.logged_input(request, texts)
        topic = version.task.topic(request)
        self.recorder.log(LoggedPrediction(id_, self.task.name, version.version, input_, kept, now(), topic, user))

    def _admit(self, texts: Sequence[str], version: LoadedVersion, deadline: float) -> None:
        """Turn away, before any work is done for it, what would be answered too late."""
        limits = self._config.limits
        if len(texts) > limits.texts:
            raise InvalidRequest(
                f"body: {len(texts)} texts in one request; at most {limits.texts} are allowed", limit=limits.texts
            )
        left = deadline - time.monotonic()
        if left <= 0:
            self.metrics.dropped("deadline", len(texts))
            raise DeadlineExceeded("the deadline passed before the request was read")
        longest = min(self._admission.bound_s, left)
        if self.backlog_s <= longest / 2:  # a batch that runs is far shorter than the other half
            return
        tokens = version.encoder.estimated_tokens(texts, version.batcher.knows)
        self._admission.met(known=not tokens)
        wait = version.batcher.wait_s(tokens)
        if tokens and wait > longest:
            self.metrics.dropped("overloaded", len(texts))
            raise Overloaded(
                f"the model is busy for the next {wait:.1f} s; try again later",
                retry_after=math.ceil(min(wait - longest, limits.deadline_s)),
                full_s=self._admission.full_s(version.batcher.wait_s(_LEAST_TOKENS)),
            )

    def _recorder(self) -> Recorder:
        settings = self._config.feedback
        secret = settings.secret.get_secret_value() if settings.secret else None
        hasher = UserHasher.open(self._config.home, secret)
        return Recorder(settings.store_url(self._config.home), hasher, settings, self.metrics)

    def metadata(self, version: LoadedVersion | None = None) -> dict[str, Any]:
        """OIP model metadata; `version_details` adds what this project knows of each loaded version."""
        versions = [version] if version else list(self._router.versions.values())
        return {
            "name": self.task.name,
            "versions": [v.version for v in versions],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": t.name, "datatype": t.datatype, "shape": [-1]} for t in self.task.inputs],
            "outputs": [{"name": t.name, "datatype": t.datatype, "shape": [-1]} for t in self.task.outputs],
            "version_details": [self._details(v) for v in versions],
        }

    def _details(self, version: LoadedVersion) -> dict[str, Any]:
        manifest = version.bundle.manifest
        return {
            "version": version.version,
            "alias": self._router.alias(version.version),
            "traffic": self._router.traffic(version.version),
            "provider": version.session.provider,
            "precision": manifest.precision,
            "max_length": manifest.max_length,
            "labels": list(manifest.labels),
            "metrics": manifest.metrics,
            "data": manifest.data.model_dump(),
            "created": manifest.created,
        }

    def _load(self, release: Release, loaded: dict[str, LoadedVersion]) -> tuple[Router[LoadedVersion], str]:
        """A router for `release`, keeping the versions that are loaded already. Blocking: loads and warms.

        Only the champion must be whole, or this raises what was wrong with it: anything that onnxruntime, the disk or
        the memory may do. Another version that fails is left out, and the sentence says why; it is "" when none did.
        """
        versions, failed = {}, {}
        for name, path in release.versions.items():
            known = loaded.get(name)
            try:
                versions[name] = known if known and known.path == path else self._load_version(name, path)
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
        if bundle.manifest.task != self.task.name:
            raise BundleError(f"The bundle {path} is for {bundle.manifest.task}, not {self.task.name}.")
        settings = self._config.session
        session = OnnxSession(
            bundle, providers=settings.providers, threads=settings.threads, gpu=settings.gpu, shared=True
        )
        seconds_a_token = session.warm_up()
        task = self.task(bundle, self._options)
        batching, remember = self._config.batching, self._config.cache.texts
        encoder = RememberingEncoder(session.encoder, bundle.manifest.max_length, remember)
        batcher = Batcher(
            lambda rows: task.activate(session.run(rows)),
            self._executor,
            batching.model_copy(update={"tokens": batching.most_tokens(auto=session.batch_tokens)}),
            self.metrics,
            name,
            waited=self._admission.waited,
            remember=remember,
            inline=not session.on_gpu,
            seconds_a_token=seconds_a_token,
            padding_cost=session.padding_cost,
        )
        return LoadedVersion(name, path, bundle, task, session, encoder, batcher)

    async def _follow(self) -> None:
        follower = Follower(self._config.home, self.task.name, self._take_up)
        while True:
            await asyncio.sleep(_FOLLOW_EVERY_S)
            self.metrics.waiting(sum(v.batcher.waiting for v in self._router.versions.values()), self.backlog_s)
            await follower.look()

    async def _take_up(self, release: Release) -> str:
        """Load beside the old release, swap, then retire the old one. Returns what was left out, and why."""
        old = self._router
        new, left_out = await asyncio.to_thread(self._load, release, old.versions)
        if new.release == old.release:
            return left_out
        for name, version in new.versions.items():
            if version is not old.versions.get(name):
                version.batcher.start()
        self._router = new
        self.metrics.loaded(new.versions)
        log.warning("%s now serves version %s", self.task.name, release.champion)
        await asyncio.gather(*(_retire(v) for name, v in old.versions.items() if new.versions.get(name) is not v))
        return left_out


def _step_back() -> None:
    """Let the event loop go before the model's thread: where cores are short a refusal would wait for the model."""
    if sys.platform == "linux":  # where a priority is a thread's own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + 10)


async def _retire(version: LoadedVersion) -> None:
    # Requests that chose this version a moment ago may not have queued their texts yet.
    await asyncio.sleep(1.0)
    await version.batcher.stop()
