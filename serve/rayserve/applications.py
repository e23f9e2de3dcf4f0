"""The tasks as Ray Serve applications: their deployment options, and loading or unloading one while others serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, build_opener

from serve.api.repository import DELETING, RUNNING, UNLOADED, ApplicationsError
from serve.config import Config, ReplicaRange, TaskConfig
from serve.rayserve import autoscaling

if TYPE_CHECKING:
    from ray.serve import Deployment
    from ray.serve.api import RunTarget

_NO_LIMIT = 100_000  # the replica itself refuses requests that it cannot answer in time
_MAX_DRAIN_S = 5.0
LOAD_TIMEOUT_S = 60.0  # replicas start in about ten seconds
_POLL_S = 0.2
_OPENER = build_opener(ProxyHandler({}))  # no proxy of the environment: the server is asked for itself


class RayApplications:
    """The control application's `Applications`. `metrics_dir` is the directory of the replicas' metrics."""

    def __init__(self, config: Config, metrics_dir: Path):
        self._config = config
        self._metrics_dir = metrics_dir
        self._deploying = threading.Lock()

    def states(self) -> dict[str, str]:
        from ray import serve as ray_serve

        with _translated_errors():
            found = ray_serve.status().applications
        # `run_many` deploys all at once, so a missing one was deleted, by `unload` or with Serve's own tools.
        return {t: str(found[t].status.value).lower() if t in found else UNLOADED for t in self._config.tasks}

    def load(self, task: str) -> None:
        from ray import serve as ray_serve

        with self._deploying, _translated_errors():
            state = self.states()[task]
            if state in (UNLOADED, "deploy_failed"):  # deployed again, one in another state would lose its replicas
                target = task_target(self._config, task, self._metrics_dir)
                ray_serve.run_many(
                    [target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
                )
                state = "deploying"
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        while state != RUNNING or not self._answers(task):  # HAProxy hears of new replicas a moment later
            if state == "deploy_failed":
                reason = failures([task])
                self.unload(task)
                raise ApplicationsError(f"{reason}; it is unloaded again")
            if state in (UNLOADED, DELETING):
                raise ApplicationsError("it is being unloaded")
            if time.monotonic() > deadline:
                raise ApplicationsError(f"it is still {state} after {LOAD_TIMEOUT_S:.0f} s, and may come up later")
            time.sleep(_POLL_S)
            state = self.states()[task]

    def _answers(self, task: str) -> bool:
        """Whether a request to the task, by the way that clients take, reaches a replica."""
        server = self._config.server
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
        host = f"[{host}]" if ":" in host else host
        try:
            with _OPENER.open(f"http://{host}:{server.port}/v2/models/{task}/ready", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:  # URLError and HTTPError are of it
            return False

    def unload(self, task: str) -> None:
        from ray import serve as ray_serve

        with _translated_errors():
            ray_serve.delete(task)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise ApplicationsError for what Ray and Ray Serve raise when they do not answer, or not in time."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        yield
    except ApplicationsError:
        raise
    except (RuntimeError, TimeoutError, RayError, RayServeException) as error:
        raise ApplicationsError(f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]) from error


def failures(applications: Sequence[str]) -> str:
    """The last line of the error of each failed application: our own errors are sentences, the rest is traceback."""
    from ray import serve as ray_serve

    failed = []
    for name, status in ray_serve.status().applications.items():
        if name in applications and "FAILED" in str(status.status):
            messages = [status.message, *(d.message for d in status.deployments.values())]
            lines = [line for message in messages for line in message.splitlines() if "Error: " in line]
            failed.append(f"{name}: {lines[-1].split('Error: ', 1)[1] if lines else messages[-1]}")
    return "; ".join(failed)


def targets(config: Config, metrics_dir: Path) -> list[RunTarget]:
    """The applications to deploy: the control application and one per task."""
    from ray.serve.api import RunTarget

    from serve.rayserve import deployments

    # The decorator turns the class into a Deployment, but its annotation does not say so.
    deployment: Deployment = deployments.ControlDeployment
    control = RunTarget(deployment.bind(config, str(metrics_dir)), name="control", route_prefix="/")
    return [control, *(task_target(config, task, metrics_dir) for task in config.tasks)]


def task_target(config: Config, task: str, metrics_dir: Path) -> RunTarget:
    """The application of one task, at its route prefix."""
    import ray
    from ray.serve.api import RunTarget

    from serve.rayserve import deployments

    settings = config.tasks[task]
    cores = None if config.ray.address is None else int(ray.cluster_resources().get("CPU", 1))
    deployment: Deployment = deployments.TaskDeployment
    configured = deployment.options(
        name=task,
        **_scaling_options(settings, cores, config.limits.wait_s),
        ray_actor_options={"num_cpus": config.ray.cpus, "num_gpus": settings.gpus},
        max_ongoing_requests=_NO_LIMIT,
        graceful_shutdown_timeout_s=min(config.limits.deadline_s, _MAX_DRAIN_S),
    )
    return RunTarget(configured.bind(task, config, str(metrics_dir)), name=task, route_prefix=f"/v2/models/{task}")


def _scaling_options(settings: TaskConfig, cores: int | None, wait_s: float) -> dict[str, Any]:
    if not isinstance(settings.replicas, ReplicaRange):
        return {"num_replicas": settings.replica_count(cores)}
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    policy = AutoscalingPolicy(
        policy_function=f"{autoscaling.__name__}:{autoscaling.BacklogPolicy.__name__}", policy_kwargs={"wait_s": wait_s}
    )
    scale = settings.replicas
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=scale.min,
            max_replicas=scale.max,
            upscale_delay_s=scale.up_after_s,
            downscale_delay_s=scale.down_after_s,
            metrics_interval_s=autoscaling.REPORT_EVERY_S,
            look_back_period_s=autoscaling.LOOK_BACK_S,
            policy=policy,
        )
    }
