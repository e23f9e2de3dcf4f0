"""The tasks as Ray Serve applications: their deployment options, and loading or unloading one while others serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve.config import Config, ReplicaRange, TaskConfig
from serve.rayserve import autoscaling

if TYPE_CHECKING:
    from ray.serve import Deployment
    from ray.serve.api import RunTarget

_NO_LIMIT = 100_000  # the replica itself refuses requests that it cannot answer in time
_MAX_DRAIN_S = 5.0


class RayApplications:
    """The control application's `Applications`. `metrics_dir` is the directory of the replicas' metrics."""

    def __init__(self, config: Config, metrics_dir: Path):
        self._config = config
        self._metrics_dir = metrics_dir

    def states(self) -> dict[str, str]:
        from ray import serve as ray_serve

        found = ray_serve.status().applications
        # `run_many` deploys all at once, so a missing one was deleted, by `unload` or with Serve's own tools.
        return {t: str(found[t].status.value).lower() if t in found else "unloaded" for t in self._config.tasks}

    def load(self, task: str) -> None:
        from ray import serve as ray_serve

        if self.states()[task] != "running":
            target = task_target(self._config, task, self._metrics_dir)
            ray_serve.run_many([target], wait_for_applications_running=True)

    def unload(self, task: str) -> None:
        from ray import serve as ray_serve

        ray_serve.delete(task)


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
