"""What the operator has set in the environment stays, but where the server would be wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.rayserve import environment, haproxy
from serve.rayserve.environment import (
    CALLBACK,
    LEAN,
    flags_of_serve,
    flags_of_this_run,
    has_haproxy,
    restore,
    set_flags,
)
from tests.helpers.command import ROOT

needs_haproxy = pytest.mark.skipif(not has_haproxy(), reason="Ray brings no HAProxy for this system")


@pytest.fixture(autouse=True)
def ports() -> Iterator[None]:
    """The ports that a start takes are given back."""
    yield
    while environment._guards:
        environment._guards.pop().close()


def flags(folder: Path) -> dict[str, str]:
    return flags_of_serve(30) | flags_of_this_run(folder)


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
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/own", str(LEAN)]))
    monkeypatch.setenv("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "own:middlewares")
    monkeypatch.setenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", "0")
    found = flags(tmp_path)
    assert found["PYTHONPATH"] == os.pathsep.join([str(LEAN), "/own"])
    assert found["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == CALLBACK
    assert found["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


@needs_haproxy
def test_the_wrapper_starts_the_operators_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/own/haproxy")
    found = flags(tmp_path)
    assert found["RAY_SERVE_HAPROXY_BINARY_PATH"] == str(haproxy.WRAPPER)
    assert found["HAPROXY"] == "/own/haproxy"


@needs_haproxy
def test_our_lines_for_haproxy_follow_the_operators_value(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RAY_SERVE_HAPROXY_LOG_TARGET", "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    log, balance = (flags_of_serve(30)[name].split("\n    ") for name in names)
    assert (log[0], balance[:2]) == ("127.0.0.1:514 local0 info", ["leastconn", "no log"])
    for name, value in zip(names, ("/dev/log", "roundrobin"), strict=True):
        monkeypatch.setenv(name, value)
    own_log, own_balance = (flags_of_serve(30)[name].split("\n    ") for name in names)
    assert own_log == ["/dev/log local0 info", *log[1:]]
    assert own_balance == ["roundrobin", *balance[2:]]  # who names a log wants one


def test_a_start_leaves_the_environment_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    before = dict(os.environ)
    restore(set_flags(flags(tmp_path)))
    assert dict(os.environ) == before


def test_each_page_that_the_table_names_exists() -> None:
    from serve.rayserve import environment as module

    rows = [*module._of_haproxy(30), *module._of_serve(), *module._of_the_wrapper(), *module._of_this_run(Path("/run"))]
    assert all(row.why for row in rows)
    pages = {row.page for row in rows if row.page}
    assert pages
    for page in pages:
        assert list((ROOT / "docs" / "decisions").glob(f"{page}-*.md")), page
