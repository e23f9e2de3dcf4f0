"""What the operator has set in the environment stays, but where the server would be wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.config import Config, LimitsConfig, RayConfig
from serve.rayserve import environment as module
from serve.rayserve import haproxy
from serve.rayserve.environment import (
    CALLBACK,
    STUBS,
    flags_of_serve,
    flags_of_this_run,
    has_haproxy,
    restore,
    set_flags,
)
from serve.rayserve.tweaks import TWEAKS
from tests.helpers.command import ROOT

needs_haproxy = pytest.mark.skipif(not has_haproxy(), reason="Ray brings no HAProxy for this system")


@pytest.fixture(autouse=True)
def ports() -> Iterator[None]:
    """The ports that a start takes are given back."""
    yield
    while module._guards:
        module._guards.pop().close()


def flags(folder: Path) -> dict[str, str]:
    return flags_of_serve(Config()) | flags_of_this_run(folder)


def test_what_the_operator_has_set_stays_and_the_rest_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"OMP_NUM_THREADS": "4", "RAY_SERVE_HAPROXY_STATS_PORT": "8404", "RAY_USAGE_STATS_ENABLED": ""}
    for name in own:
        monkeypatch.delenv(name, raising=False)
    ours = flags(tmp_path)
    for name, value in own.items():
        assert ours[name] != value
        monkeypatch.setenv(name, value)
    assert {name: value for name, value in flags(tmp_path).items() if name in own} == own
    monkeypatch.delenv("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", raising=False)
    assert flags(tmp_path)["RAY_SERVE_CONTROL_LOOP_INTERVAL_S"] == "0.5"


def test_what_the_server_is_wrong_without_is_ours_whatever_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/own", str(STUBS)]))
    monkeypatch.setenv("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "own:middlewares")
    monkeypatch.setenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", "0")
    found = flags(tmp_path)
    assert found["PYTHONPATH"] == os.pathsep.join([str(STUBS), "/own"])
    assert found["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == CALLBACK
    assert found["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


@needs_haproxy
def test_the_wrapper_starts_the_operators_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/own/haproxy")
    found = flags(tmp_path)
    assert found["RAY_SERVE_HAPROXY_BINARY_PATH"] == haproxy.WRAPPER
    assert found["HAPROXY"] == "/own/haproxy"


@needs_haproxy
@pytest.mark.parametrize(
    ("deadline_s", "interval"), [(10.0, "1500ms"), (6.0, "1000ms"), (0.2, "500ms"), (0.001, "500ms")]
)
def test_a_short_deadline_does_not_take_busy_replicas_for_frozen_ones(deadline_s: float, interval: str) -> None:
    config = Config(limits=LimitsConfig(deadline_s=deadline_s))
    assert flags_of_serve(config)["RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER"] == interval


STOCK = Config().model_copy(update={"ray": RayConfig(tuning="stock")})


def test_stock_sets_what_is_documented_and_nothing_for_a_tweak(tmp_path: Path) -> None:
    full, stock = flags_of_serve(Config()), flags_of_serve(STOCK)
    assert stock.items() < full.items()
    assert "RAY_USAGE_STATS_ENABLED" in stock
    for name in ("PYTHONPATH", "RAY_SERVE_ENABLE_HA_PROXY", "HAPROXY", "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"):
        assert name not in stock
    assert not [name for name in stock if name.startswith("__")]


def test_each_flag_belongs_to_a_tweak_that_exists_or_to_none() -> None:
    names = {tweak.name for tweak in TWEAKS}
    assert {flag.tweak for flag in [*module._haproxy_flags(Config()), *module._serve_flags()]} <= {*names, ""}


def test_a_start_leaves_the_environment_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    before = dict(os.environ)
    restore(set_flags(flags(tmp_path)))
    assert dict(os.environ) == before


def test_each_page_that_the_table_names_exists() -> None:
    flags = [*module._haproxy_flags(Config()), *module._serve_flags(), *module._run_flags(Path("/run"))]
    assert all(flag.reason for flag in flags)
    pages = {flag.decision for flag in flags if flag.decision}
    assert pages
    for page in pages | {tweak.decision for tweak in TWEAKS}:
        assert list((ROOT / "docs" / "decisions").glob(f"{page}-*.md")), page
