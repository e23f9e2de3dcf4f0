"""The Ray tasks of the loop: a retraining, a test for drift, MLflow's aliases; each in a worker that ends with it."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import ray

from export.machine import usable_cores
from models.feedback.store import Store
from models.feedback.store.database import utc_now
from models.retraining.plan import Plan, Result
from models.retraining.run import retrain
from serve.config import Config
from serve.rayserve.environment import full_path

_NICE = 19  # whatever serves goes first
_DRIFT_WINDOW = 1000


def start_run(config: Config, plan: Plan) -> Any:
    """Begin a retraining in a worker of its own."""
    return _retrain.remote(config, plan)


def start_drift(config: Config, task: str) -> Any:
    """Begin the test; its result is a sentence, or "" when nothing has drifted."""
    return _drift.remote(config, task)


def start_follow(config: Config, task: str) -> Any:
    """Begin to bring MLflow's aliases after the task's release; its result is whether they are."""
    return _follow.remote(config, task)


def poll(reference: Any) -> Any:
    """The result, None while it is not there; a worker that was killed gives a failed Result."""
    done, _ = ray.wait([reference], timeout=0)
    if not done:
        return None
    try:
        return ray.get(reference)
    except Exception as error:
        return Result("failed", f"its process ended: {type(error).__name__}")


# max_calls=1: the worker ends, and gives back the gigabyte that torch takes. Ray must not repeat a run by itself: the
# corrections of one that was killed come back when its leases expire.
_OF_A_RUN: dict[str, Any] = {
    "num_cpus": 0, "max_calls": 1, "max_retries": 0,
    "runtime_env": {
        "env_vars": {"PYTHONPATH": os.pathsep.join(full_path()), "OMP_NUM_THREADS": str(usable_cores())}
    },
}  # fmt: skip


@ray.remote(**_OF_A_RUN)  # type: ignore[untyped-decorator]
def _retrain(config: Config, plan: Plan) -> Result:
    os.nice(_NICE)
    store = Store.open(config.feedback.store_url(config.home))
    return retrain(plan, config.home, store, "the loop", lambda *_: None)


@ray.remote(**_OF_A_RUN)  # type: ignore[untyped-decorator]
def _drift(config: Config, task: str) -> str:
    from models.evaluation.drift import drift_of_confidence, drift_of_lengths

    os.nice(_NICE)
    store = Store.open(config.feedback.store_url(config.home))
    since = utc_now() - timedelta(days=config.feedback.log.keep_days)
    rows = sorted(store.latest_predictions(task, since, 5 * _DRIFT_WINDOW), key=lambda row: row.at)
    lengths = [len(text) for row in rows for text in row.input]
    scores = [answer["score"] for row in rows for answer in row.output]
    for test, values in ((drift_of_lengths, lengths), (drift_of_confidence, scores)):
        if len(values) >= 2 * _DRIFT_WINDOW:
            found = test(values[:_DRIFT_WINDOW], values[-_DRIFT_WINDOW:])
            if found.drifted:
                return found.sentence
    return ""


@ray.remote(**_OF_A_RUN)  # type: ignore[untyped-decorator]
def _follow(config: Config, task: str) -> bool:
    from models.releases.registry import Registry

    os.nice(_NICE)
    return Registry(config.home).follow(task)
