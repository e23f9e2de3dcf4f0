"""A server that is to join a Ray cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command import flywheel, free_port


def test_a_cluster_that_is_not_there_is_said_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("FLYWHEEL_RAY__ADDRESS", address)
    refused = flywheel("up", "--port", str(free_port()), home=home)
    assert refused.returncode == 1
    assert f"Cannot join the Ray cluster at ray.address '{address}'" in refused.stderr
