"""Faults that clients must not notice, put into a real server under the load of `python -m loadtests.faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.faults.bounds import BOUNDS
from loadtests.faults.catalogue import PLAIN
from loadtests.faults.measurement import measure
from loadtests.faults.server import HAPROXY, server

# Bounds of time, of which one is met closely (a frozen replica: 18 of 20 s): they need a machine of their own. In CI,
# tests/unit/serve/rayserve/ kills and freezes what real HAProxies stand on.
pytestmark = [pytest.mark.slow, pytest.mark.needs_tweak("haproxy", "haproxy_lines", "haproxy_stays")]

NAMES = (
    "manager-killed", "haproxy-killed", "replica-frozen", "replica-killed", "controller-killed", "rolling-restart",
    "descriptors", "promotion", "rollback",
)  # fmt: skip


def test_faults_stay_within_their_bounds(trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(trained_home))
    with server(tmp_path / "run") as running:
        for name in NAMES:
            found = measure(name, BOUNDS[name], running, lambda seen, name=name: PLAIN[name](running, seen))
            assert found.missed == [], found
        assert len(running.pids(HAPROXY)) == 1
