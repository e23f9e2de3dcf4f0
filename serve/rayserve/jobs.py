"""The controller's jobs as Ray tasks: retraining, drift test, and MLflow's aliases; and discoveries for the API."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError

from export.errors import CheckpointError, ParityError
from export.machine import usable_cores
from models.discovery.discover import Discovery
from models.feedback.store import Store
from models.feedback.store.database import utc_now
from models.releases.registry import Registry, is_installed
from models.releases.release import read_release
from models.retraining.plan import Plan, Result
from models.retraining.run import retrain
from serve.api.discovery import Discover, DiscoveryFailed
from serve.config import Config
from serve.controller.workers import ACTOR
from serve.errors import Conflict
from serve.logs import log_to_server
from serve.rayserve.environment import original_pythonpath
from serve.tracing import export as tracing
from serve.tracing import traced_stages

if TYPE_CHECKING:
    from models.evaluation.drift import Drift

log = logging.getLogger("flywheel.discovery")

_NICENESS = 19  # the lowest priority, below every serving process
_DISCOVERY_TIMEOUT_S = 300.0


class RayWorkers:
    """The controller's `Workers`: each job is a Ray task in a worker process that ends with it."""

    def __init__(self, config: Config):
        self._config = config
        self._has_mlflow = is_installed()

    def start_retraining(self, plan: Plan, owner: str) -> Any:
        return _retrain.remote(self._config, plan, owner)

    def start_drift_test(self, task: str) -> Any:
        return _test_drift.remote(self._config, task)

    def start_registry_sync(self, task: str) -> Any:
        return _sync_registry.remote(self._config, task) if self._has_mlflow else None

    def start_sentence_encoder(self) -> Any:
        return _make_sentence_encoder.remote(self._config)

    def poll(self, handle: Any) -> Any:
        done, _ = ray.wait([handle], timeout=0)
        if not done:
            return None
        try:
            return ray.get(handle)
        except Exception as error:
            return Result("failed", f"its process ended: {type(error).__name__}")


def discoverer(config: Config) -> Discover:
    """Runs discoveries as Ray tasks, as the controller's jobs, and waits for them."""

    def discover(task: str) -> Discovery:
        if find_spec("torch") is None or find_spec("sklearn") is None:
            raise Conflict("discovery needs the packages of training: pip install 'flywheel-serve[train]'")
        handle = _discover.remote(config, task)
        try:
            found: Discovery = ray.get(handle, timeout=_DISCOVERY_TIMEOUT_S)
        except GetTimeoutError as error:
            ray.cancel(handle, force=True)
            late = f"the discovery took longer than {_DISCOVERY_TIMEOUT_S:.0f} s and was ended"
            raise DiscoveryFailed(f"{late}; ask again when the machine is less busy") from error
        except Exception as error:
            log.error("%s: the process of the discovery ended: %s", task, type(error).__name__)
            ended = f"the process of the discovery ended: {type(error).__name__}"
            raise DiscoveryFailed(f"{ended}; the server's log has the reason") from error
        return found

    return discover


# max_calls=1: the worker process ends after the task and frees the gigabyte that torch takes. max_retries=0: the
# controller gives up what a run that was killed held, and decides when the next one begins, so Ray must not retry it.
# `nice` from the start: importing alone takes seconds of a core, in which requests were refused.
_TASK_OPTIONS: dict[str, Any] = {
    "num_cpus": 0, "max_calls": 1, "max_retries": 0,
    "runtime_env": {
        "py_executable": f"nice -n {_NICENESS} {shlex.quote(sys.executable)}",
        "env_vars": {"PYTHONPATH": os.pathsep.join(original_pythonpath()), "OMP_NUM_THREADS": str(usable_cores())}
    },
}  # fmt: skip


@ray.remote(**_TASK_OPTIONS)  # type: ignore[untyped-decorator]
def _retrain(config: Config, plan: Plan, owner: str) -> Result:
    log_to_server(config.logging, "retraining", plan.task)
    store = Store.open(config.feedback.store_url(config.home))
    tracing.start(config.tracing, "retraining")
    try:
        with traced_stages(plan.task) as (report, end):
            result = retrain(plan, config.home, store, ACTOR, report, owner)
            end(result)
    finally:
        tracing.stop()
    return result


@ray.remote(**_TASK_OPTIONS)  # type: ignore[untyped-decorator]
def _test_drift(config: Config, task: str) -> dict[str, Drift]:
    from models.evaluation.drift import WINDOW, drift_in_log

    log_to_server(config.logging, "drift test", task)
    store = Store.open(config.feedback.store_url(config.home))
    since = utc_now() - timedelta(days=config.feedback.log.keep_days)
    rows = sorted(store.predictions.latest(task, since, 5 * WINDOW), key=lambda row: row.at)
    return drift_in_log(rows, read_release(config.home, task).champion)


@ray.remote(**_TASK_OPTIONS)  # type: ignore[untyped-decorator]
def _discover(config: Config, task: str) -> Discovery:
    from models.discovery.discover import discover

    log_to_server(config.logging, "discovery", task)
    return discover(Store.open(config.feedback.store_url(config.home)), config.home, task)


@ray.remote(**_TASK_OPTIONS)  # type: ignore[untyped-decorator]
def _sync_registry(config: Config, task: str) -> bool:
    log_to_server(config.logging, "registry", task)
    return Registry(config.home).follow(task)


@ray.remote(**_TASK_OPTIONS)  # type: ignore[untyped-decorator]
def _make_sentence_encoder(config: Config) -> str:
    log_to_server(config.logging, "encoder")
    if find_spec("torch") is None:
        return "it needs the extra `train` (pip install 'flywheel-serve[train]')"
    from models.data.dataset import load_dataset
    from models.knowledge.make_encoder import make_sentence_encoder
    from models.training.candidate import calibration_sample

    texts = [example.text for example in load_dataset("intent").train]  # of the seed: the same in every home
    try:
        make_sentence_encoder(config.home, calibration_sample(texts, seed=0))
    except (CheckpointError, ParityError, OSError) as error:
        return str(error)
    return ""
