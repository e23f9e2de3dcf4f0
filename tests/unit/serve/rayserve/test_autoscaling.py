"""More replicas and more machines, as far as one can test without them; loadtests/cluster.py starts a cluster."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serve.config import ConfigError, ReplicaRange, TaskConfig, load_config
from serve.rayserve.autoscaling import BacklogPolicy, LoadMeter, ReplicaLoad, desired_replicas

IDLE, STEADY, LATE, SHEDDING = (
    ReplicaLoad(0.0, 0.02),
    ReplicaLoad(0.002, 0.8),
    ReplicaLoad(0.3, 1.0),
    ReplicaLoad(1.0, 1.0),
)


@pytest.mark.parametrize(
    ("loads", "wanted"),
    [
        ([IDLE], 1),
        ([STEADY], 1),
        ([LATE], 2),
        ([SHEDDING], 2),
        ([SHEDDING] * 4, 8),
        ([ReplicaLoad(5.0, 1.0)] * 4, 8),
        ([LATE] * 10, 13),
        ([IDLE, IDLE], 1),
        ([IDLE, SHEDDING], 3),
        ([STEADY, STEADY], 2),
        ([ReplicaLoad(0.0, 0.35)] * 2, 2),  # one alone would be too busy
        ([ReplicaLoad(0.0, 0.25)] * 2, 1),
        ([ReplicaLoad(0.05, 0.02)] * 2, 2),  # something waits: no time to go down
    ],
)
def test_replicas_follow_the_waiting_work(loads: list[ReplicaLoad], wanted: int) -> None:
    assert desired_replicas(loads, wait_s=1.0) == wanted


def test_waiting_is_judged_by_what_is_allowed() -> None:
    assert desired_replicas([LATE], wait_s=10.0) == 1
    assert desired_replicas([LATE], wait_s=0.5) == 2


def test_busy_is_the_share_of_a_core() -> None:
    meter = LoadMeter()
    sum(range(3_000_000))
    load = meter.read(0.5)
    assert load.backlog_s == 0.5
    assert 0.1 < load.busy < 2


@dataclass
class Context:
    """What of Ray Serve's AutoscalingContext the policy reads."""

    target_num_replicas: int
    current_num_replicas: int
    aggregated_metrics: dict[str, dict[str, float]] | None = field(default_factory=dict)


def context(target: int, current: int, loads: dict[str, ReplicaLoad]) -> Any:
    metrics = {name: {replica: getattr(load, name) for replica, load in loads.items()} for name in ReplicaLoad._fields}
    return Context(target, current, metrics)


def test_the_policy_decides_when_every_replica_has_reported() -> None:
    policy = pickle.loads(pickle.dumps(BacklogPolicy(wait_s=1.0)))
    assert policy(context(1, 1, {"a": SHEDDING})) == (2, {})
    assert policy(context(2, 2, {"a": IDLE, "b": IDLE})) == (1, {})


@pytest.mark.parametrize(
    "unsettled",
    [
        Context(2, 2, None),
        Context(2, 2, {}),
        context(2, 2, {"a": SHEDDING}),
        context(2, 1, {"a": SHEDDING}),
        context(1, 2, {"a": IDLE, "b": IDLE}),
    ],
    ids=["nothing yet", "no report", "one report", "one starts", "one stops"],
)
def test_the_policy_waits_while_replicas_come_and_go(unsettled: Any) -> None:
    assert BacklogPolicy(wait_s=1.0)(unsettled) == (unsettled.target_num_replicas, {})


def write(folder: Path, text: str) -> Path:
    file = folder / "own.yaml"
    file.write_text(text)
    return file


def test_a_range_of_replicas(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "tasks: {intent: {replicas: {max: 8, up_after_s: 3}}}"))
    assert config.tasks["intent"].replicas == ReplicaRange(min=1, max=8, up_after_s=3)
    assert config.tasks["intent"].replica_count() == 1


def test_a_range_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_TASKS__INTENT__REPLICAS__MAX", "3")
    monkeypatch.setenv("FLYWHEEL_RAY__ADDRESS", "head.example:6379")
    config = load_config(write(tmp_path, "tasks: {intent: {replicas: 2}}"))
    assert config.tasks["intent"].replicas == ReplicaRange(max=3)
    assert config.ray.address == "head.example:6379"


def test_auto_is_one_a_core_of_the_cluster() -> None:
    assert TaskConfig().replica_count(cores=24) == 24
    assert TaskConfig(replicas=3).replica_count(cores=24) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tasks: {intent: {replicas: {min: 4, max: 2}}}", "replicas.range.max: value error, must not be less than min"),
        ("tasks: {intent: {replicas: {min: 4}}}", "replicas.range.max: field required"),
        ("tasks: {intent: {replicas: {max: 4, most: 5}}}", "replicas.range.most: there is no such key"),
        ("tasks: {intent: {replicas: 0}}", "replicas.number: input should be greater than or equal to 1"),
        ("tasks: {intent: {replicas: many}}", "replicas.number: input should be a valid integer"),
        ("ray: {address: 'ray://head:10001'}", "ray.address: string should match pattern"),
        ("ray: {cpus: -1}", "ray.cpus: input should be greater than or equal to 0"),
        ("ray: {adress: auto}", "ray.adress: there is no such key"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    assert expected in str(caught.value)
