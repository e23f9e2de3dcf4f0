"""One replica of a task: answers validated requests with one of the versions in memory."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from export.tokenizer import Ids
from models.feedback.pseudonyms import UserHasher
from models.feedback.types import LoggedPrediction
from models.releases.release import Release
from models.tasks.base import Prediction, get_task
from models.users import UserName
from serve.config import Config
from serve.engine.admission import Admission
from serve.engine.explaining import Explainer
from serve.engine.ids import new_id
from serve.engine.knowledge import Asking, KnowledgeBase, KnowledgeFollower
from serve.engine.loaded_model import LoadedVersion, Output, decoded
from serve.engine.model_repository import ModelRepository
from serve.engine.shadow import Shadow
from serve.engine.token_cache import tokens_to_run
from serve.errors import DeadlineExceeded, InvalidRequest, NotReady, Overloaded
from serve.feedback.writer import PredictionLogger, now
from serve.metrics import Metrics

log = logging.getLogger("flywheel.replica")

_MAX_CACHED_VECTORS = 2_000  # of texts that asked the knowledge base; 3 MB
_MIN_TOKENS = 3  # of a text: one word between the start and the end token


TokensToRun = Callable[[Callable[[Ids], bool]], int]


class Replica:
    """The versions of one task in this process. Independent of HTTP and Ray."""

    def __init__(self, task: str, config: Config):
        self.task = get_task(task)
        self._config = config
        self._logged_fields = [tensor.name for tensor in self.task.outputs]  # fields of a prediction that are logged
        self._monitors_opinion = config.opinion.task == task
        self.metrics = Metrics(task)
        self._admission = Admission(config.limits.wait_s)
        self.prediction_logger = self._open_prediction_logger()
        self._repository = ModelRepository(self.task, config, self._admission, self.metrics)
        self._shadow = Shadow(self.metrics, self._logged_fields[0], config.limits.deadline_s)
        self._knowledge = self._knowledge_follower() if self.task.uses_knowledge else None
        self._loop: asyncio.AbstractEventLoop

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()  # cached, since get_running_loop is a system call
        self._repository.start()
        self.prediction_logger.start()
        if self._knowledge is not None:
            self._knowledge.start()

    async def stop(self) -> None:
        await self._repository.stop()
        if self._knowledge is not None:
            await self._knowledge.stop()
        await asyncio.to_thread(self.prediction_logger.stop)

    @property
    def body_limit(self) -> int:
        return self._config.limits.body_bytes

    @property
    def alive(self) -> bool:
        """False when a component has died that the replica needs to answer; it must then be replaced."""
        return self._repository.alive

    @property
    def config(self) -> Config:
        return self._config

    @property
    def release(self) -> Release:
        """The release that is served: the one in the file, without the versions that could not be loaded."""
        return self._repository.router.release

    def choose(self, pinned: str | None, user: UserName | None = None) -> LoadedVersion:
        """Raises NotFound for a version that is not loaded."""
        return self._repository.router.choose(pinned, user)

    @property
    def max_seconds(self) -> float:
        """The longest deadline that a client can ask for, in seconds."""
        return self._config.limits.deadline_s

    @property
    def backlog_s(self) -> float:
        """Seconds of queued work, summed over the versions, which share the model's thread."""
        return self._repository.backlog_s

    def observe_lag(self, seconds: float) -> None:
        """Record that the event loop handled a request so many `seconds` after it had read it."""
        self._admission.observe_lag(seconds)

    async def answer(
        self,
        version: LoadedVersion,
        request: Any,
        deadline: float,
        disconnected: Callable[[], bool] = bool,
        user: UserName | None = None,
    ) -> dict[str, Any]:
        """The body of the predict response to a validated request. Raises a RequestError that the client can act on.

        - `deadline`: in time.monotonic.
        - `disconnected`: returns whether the client has closed the connection; called before its texts run.
        - `user`: who asks, for the prediction log.
        """
        if not version.batcher.alive:
            raise NotReady("the model's worker has died; the replica is being replaced", retry_after=5)
        if (fault := version.task.fault(request)) is not None:
            raise InvalidRequest(fault)
        texts = version.task.texts(request)
        self._check(texts, deadline)
        if not version.model.answers_early:  # then nothing need be done for a request that is refused
            self._admit(len(texts), version, deadline, partial(version.encoder.estimated_tokens, texts))
        started = time.perf_counter()
        encoded = await version.encoder.encode(texts)
        self.metrics.stage(version.version, "tokenize", time.perf_counter() - started)
        rows = [row.ids for row in encoded]
        wishes = None
        if version.wishes is not None and (joined := version.wishes.joined(texts)):
            wishes = await version.wishes.begin(texts, joined)
        early = await self._early_answers(version, rows, wishes.rows if wishes else (), deadline)
        explainer = None
        if version.task.explains(request):
            explainer = await Explainer.of_request(version, texts, rows, early, self._config.limits.texts)
            self._admit(len(texts), version, deadline, explainer.tokens_to_run)
        asking = None
        if self._knowledge is not None and not self._knowledge.is_empty:
            asking = Asking(self._knowledge, version.task, request, texts)
        outputs = version.outputs(rows, early, deadline, disconnected)
        if wishes is None or not wishes.rows:
            output = await outputs
        else:
            output, _ = await asyncio.gather(outputs, wishes.read(deadline, disconnected))
        answered = sum(found is not None for found in early)
        self.metrics.texts(version.version, "linear", answered)
        self.metrics.texts(version.version, version.model.stages[-1], len(texts) - answered)
        started = time.perf_counter()
        predictions = await decoded(version, request, texts, output, [row.truncated for row in encoded])
        self.metrics.stage(version.version, "decode", time.perf_counter() - started)
        if wishes is not None:
            wishes.add_to(predictions, output)
        if asking is not None:
            await asking.add_to(predictions, deadline)
        if explainer is not None:
            await explainer.add_to(predictions, output, deadline, disconnected)
        id_ = new_id()
        self.after_response(self._log, id_, version, request, texts, predictions, early, user)
        self.after_response(self.metrics.predictions, version.version, version.task.labels, predictions)
        challenger = self._repository.router.shadow
        if challenger is not None and version is not challenger and not version.task.draws(request):
            self._shadow.compare(challenger, request, predictions, busy=self.backlog_s > 0)
        if version.task.wants_details(request):
            for prediction, stages in zip(predictions, version.stages(early), strict=True):
                prediction["stages"] = stages
        return {
            "id": id_,
            "model_name": self.task.name,
            "model_version": version.version,
            "predictions": predictions,
        }

    async def _early_answers(
        self, version: LoadedVersion, rows: Sequence[Ids], clauses: Sequence[Ids], deadline: float
    ) -> Sequence[Output | None]:
        """`version.early_answers`, once the texts that have none are admitted. Raises Overloaded.

        `clauses` are further rows that the encoder has to read.
        """
        early = await version.early_answers(rows)
        if version.model.answers_early:
            unread = [ids for ids, found in zip(rows, early, strict=True) if found is None]
            answered = len(rows) - len(unread)
            self._admit(len(rows), version, deadline, partial(tokens_to_run, [*unread, *clauses]), answered=answered)
        return early

    def after_response(self, do: Callable[..., object], *arguments: Any) -> None:
        """Call `do` in the event loop's next turn, after the current response has been sent."""
        self._loop.call_soon(do, *arguments)

    def _log(
        self,
        id_: str,
        version: LoadedVersion,
        request: Any,
        texts: Sequence[str],
        predictions: Sequence[Prediction],
        early: Sequence[Output | None],
        user: UserName | None,
    ) -> None:
        at = now()
        if self._monitors_opinion and (documents := version.task.documents(request, predictions, id_, at)):
            self.prediction_logger.log_documents(self.task.name, documents, user)
        if not self._config.feedback.log.sample:
            return
        fields = self._logged_fields  # some are optional: a propensity is only of a ranking that was drawn
        outputs = [{name: prediction[name] for name in fields if name in prediction} for prediction in predictions]
        if version.model.answers_early:  # the test for drift compares their share
            for output, found in zip(outputs, early, strict=True):
                output["early"] = found is not None
        input_ = version.task.logged_input(request, texts)
        topic, named = version.task.topic(request), version.task.user(request)
        subject = named if named != user else None
        self.prediction_logger.log(
            LoggedPrediction(id_, self.task.name, version.version, input_, outputs, at, topic, user, subject)
        )

    def _check(self, texts: Sequence[str], deadline: float) -> None:
        """Raises InvalidRequest for too many texts, DeadlineExceeded, or Overloaded when the event loop is too late."""
        limits = self._config.limits
        if len(texts) > limits.texts:
            raise InvalidRequest(
                f"body: {len(texts)} texts in one request; at most {limits.texts} are allowed", limit=limits.texts
            )
        self._check_deadline(len(texts), deadline)
        if late_s := self._admission.late_s():
            self.metrics.dropped("overloaded", len(texts))
            raise Overloaded("more requests arrive than can be read; try again later", retry_after=1, full_s=late_s)

    def _check_deadline(self, texts: int, deadline: float) -> None:
        """Raises DeadlineExceeded once it has passed."""
        if time.monotonic() >= deadline:
            self.metrics.dropped("expired", texts)
            raise DeadlineExceeded("the deadline passed before the request was read")

    def _admit(
        self, texts: int, version: LoadedVersion, deadline: float, tokens_of: TokensToRun, *, answered: int = 0
    ) -> None:
        """Raises Overloaded for a request of so many `texts` that would be answered too late, or DeadlineExceeded.

        `tokens_of(is_cached)` is the number of tokens that the encoder would have to run for it. So many texts are
        `answered` early; one that is not delays them all, since a request has one response.
        """
        self._check_deadline(texts, deadline)  # reading thousands of long texts takes a while
        limits = self._config.limits
        max_wait = min(self._admission.bound_s, deadline - time.monotonic())
        if self.backlog_s <= max_wait / 2:  # a running batch is far shorter than the other half
            if version.model.answers_early:  # so that their share is known when an overload begins
                self._admission.arrived(cached=answered == texts)
            return
        tokens = tokens_of(version.batcher.is_cached)
        self._admission.arrived(cached=not tokens)
        wait = version.batcher.wait_s(tokens)
        if tokens and wait > max_wait:
            self.metrics.dropped("overloaded", texts)
            need = f", which {texts - answered} of the {texts} texts need" if answered else ""
            raise Overloaded(
                f"the model is busy for the next {wait:.1f} s{need}; try again later",
                retry_after=math.ceil(min(wait - max_wait, limits.deadline_s)),
                full_s=self._admission.full_s(version.batcher.wait_s(_MIN_TOKENS)),
            )

    def _open_prediction_logger(self) -> PredictionLogger:
        settings = self._config.feedback
        secret = settings.secret.get_secret_value() if settings.secret else None
        hasher = UserHasher.open(self._config.home, secret)
        url, registry = settings.store_url(self._config.home), self._config.entities(self.task.name)
        return PredictionLogger(url, hasher, settings, self.metrics, registry)

    def _knowledge_follower(self) -> KnowledgeFollower:
        home, cache_size = self._config.home, min(self._config.cache.texts, _MAX_CACHED_VECTORS)
        base = KnowledgeBase(home, self.prediction_logger.store, cache_size)
        return KnowledgeFollower(base, self._config.knowledge.min_similarity, lambda: self._admission.bound_s)

    def metadata(self, version: LoadedVersion | None = None) -> dict[str, Any]:
        """OIP model metadata; `version_details` adds this server's own fields for each loaded version."""
        versions = [version] if version else list(self._repository.router.versions.values())
        return {
            "name": self.task.name,
            "versions": [v.version for v in versions],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": t.name, "datatype": t.datatype, "shape": [-1]} for t in self.task.inputs],
            "outputs": [{"name": t.name, "datatype": t.datatype, "shape": [-1]} for t in self.task.outputs],
            "version_details": [self._details(v) for v in versions],
            **({} if self._knowledge is None else {"knowledge": self._knowledge.metadata}),
        }

    def _details(self, version: LoadedVersion) -> dict[str, Any]:
        manifest = version.bundle.manifest
        return {
            "version": version.version,
            "alias": self.release.alias(version.version),
            "traffic": self.release.traffic(version.version),
            "provider": version.model.provider,
            "precision": manifest.precision,
            "max_length": manifest.max_length,
            "readers": version.model.stages,
            "early_answers": version.early_rule,
            "confidence": version.confidence_bounds,
            "labels": list(manifest.labels),
            "metrics": manifest.metrics,
            "data": manifest.data.model_dump(),
            "created": manifest.created,
            "notes": list(manifest.notes),
        }
