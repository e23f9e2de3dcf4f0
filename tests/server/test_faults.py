"""Faults that clients must not notice, put into a real server under the load of `python -m loadtests.faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.faults.bounds import BOUNDS
from loadtests.faults.catalogue import PLAIN
from loadtests.faults.measurement import measure
from loadtests.faults.server import HAPROXY, server

pytestmark = pytest.mark.needs_tweak("haproxy", "haproxy_lines", "haproxy_stays")

IN_CI = ("manager-killed", "haproxy-killed", "replica-frozen")
SLOW = ("replica-killed", "controller-killed", "rolling-restart", "descriptors", "promotion", "rollback")


@pytest.mark.parametrize(
    "names", [pytest.param(IN_CI, id="quick"), pytest.param(SLOW, id="rest", marks=pytest.mark.slow)]
)
def test_a_fault_stays_within_its_bound(
    names: tuple[str, ...], trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(trained_home))
    with server(tmp_path / "run") as running:
        for name in names:
            found = measure(name, BOUNDS[name], running, lambda seen, name=name: PLAIN[name](running, seen))
            assert found.missed == [], found
        assert len(running.pids(HAPROXY)) == 1
