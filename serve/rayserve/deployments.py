"""The two Ray Serve deployments. Import this only after `server.py` has set Ray's flags in the environment."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path

import ray
from ray import serve as ray_serve
from starlette.types import ASGIApp

from serve.config import Config
from serve.logs import log_to_server
from serve.metrics import collect_from, serve_metrics
from serve.rayserve import bypass, reports, tweaks
from serve.rayserve.autoscaling import LoadMeter
from serve.rayserve.environment import STUBS, admin_socket, has_haproxy
from serve.tracing import export as tracing

_STORE_TIMEOUT_S = 2.0  # for operators' requests and the controller's loop, when the database does not answer
# Serve replaces a replica after three checks without an answer. With its own time-out of 30 s a frozen one would be
# missing for a minute and a half (0055).
_CHECK_PERIOD_S = _CHECK_TIMEOUT_S = 1.5


@ray_serve.deployment(
    ray_actor_options={"num_cpus": 0}, health_check_period_s=_CHECK_PERIOD_S, health_check_timeout_s=_CHECK_TIMEOUT_S
)
@ray_serve.ingress()
class TaskDeployment:
    """A replica of one task: the gateway's ASGI application, on the replica's own HTTP server."""

    def __init__(self, task: str, config: Config, metrics_dir: str):
        _log(config, task, task)
        tracing.start(config.tracing, task)
        from serve.api.gateway import build_gateway
        from serve.engine.replica import Replica

        self._replica = Replica(task, config)
        serve_metrics(Path(metrics_dir))
        self._meter = LoadMeter()
        self._gateway = _install(build_gateway(self._replica, returns_id=_bypasses_serve(config)), config, metrics_dir)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._gateway

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica when this raises."""
        bypass.note_deployment_loop()
        if not self._replica.alive:
            raise RuntimeError("a batching worker or the release watcher has died")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray Serve when the task is autoscaled."""
        return self._meter.read(self._replica.backlog_s)._asdict()


@ray_serve.deployment(name="control", num_replicas=1, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=256)
@ray_serve.ingress()
class ControlDeployment:
    """Health, metadata, metrics, operators' endpoints, documentation, and the server's only controller loop."""

    def __init__(self, config: Config, metrics_dir: str):
        _log(config, "control")
        tracing.start(config.tracing, "control")
        from models.feedback.store import Store
        from serve.api.control import build_control
        from serve.controller.loop import Loop
        from serve.controller.observation import ReplicasObserver
        from serve.controller.opinion_monitor import opinion_metrics
        from serve.metrics import LoopMetrics, UnansweredRequests
        from serve.rayserve.applications import RayApplications
        from serve.rayserve.jobs import RayWorkers, discoverer

        metrics = LoopMetrics(tasks=config.tasks)
        url = config.feedback.store_url(config.home)
        store = Store(url, patience_s=_STORE_TIMEOUT_S, observe=metrics.store)
        applications = RayApplications(config, Path(metrics_dir))
        unanswered = UnansweredRequests(admin_socket(ray.get_runtime_context().get_node_id()), config.tasks)
        collect_from(Path(metrics_dir), unanswered)
        self._tuning, self._metrics_dir = config.ray.tuning, metrics_dir
        self._tweaks = tweaks.applied(joins=config.ray.address is not None)
        control = build_control(
            config, store, applications, discoverer(config), self._tuning_report, returns_id=_bypasses_serve(config)
        )
        self._control = _install(control, config, metrics_dir)
        self._loop = Loop(config, store, metrics, RayWorkers(config), opinion_metrics(config))
        self._loop.start()
        ReplicasObserver(config, applications, metrics).start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._control

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica, with the loop, when this raises."""
        bypass.note_deployment_loop()
        if not self._loop.alive:
            raise RuntimeError("the controller's loop has died")

    def _tuning_report(self) -> dict[str, object]:
        return {"mode": self._tuning, "tweaks": tweaks.in_effect(self._tweaks, reports.read(self._metrics_dir))}


def _install(application: ASGIApp, config: Config, metrics_dir: str) -> ASGIApp:
    """Install `application` to bypass Serve in mode full, and start this process's report of tweaks in effect."""
    full = config.ray.tuning == "full"
    if full:
        bypass.install(application)
    if full and _serve_reads_its_flags():
        reports.record("quiet_serve")
    if (pandas := find_spec("pandas")) is not None and pandas.origin == str(STUBS / "pandas.py"):
        reports.record("lean_imports")
    reports.start(metrics_dir, "replica")
    return application


def _bypasses_serve(config: Config) -> bool:
    """Whether requests come past Ray Serve's own layers and proxy, which put their ids into the responses."""
    return config.ray.tuning == "full" and has_haproxy()


def _serve_reads_its_flags() -> bool:
    """Whether Ray Serve has read its settings from the variables that environment.py sets."""
    try:
        from ray.serve._private import constants
    except ImportError:
        return False
    found = getattr(constants, "CONTROL_LOOP_INTERVAL_S", None)
    return found == float(os.environ.get("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "nan"))


def _log(config: Config, process: str, task: str = "") -> None:
    """Send our log to the server, and to the replica's file below the `logs/serve` folder of Ray's session.

    Ray Serve passes standard error to its own logger as INFO, below the level of that file, so our messages would be
    lost.
    """
    log_to_server(config.logging, process, task)
    logging.getLogger("flywheel").parent = logging.getLogger("ray.serve")
