"""The tweaks: each takes in the processes of a real server, none in stock mode, and one that does not is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serve.rayserve import reports
from serve.rayserve.environment import has_haproxy
from serve.rayserve.tweaks import TWEAKS, Tweak, applied, in_effect, inactive, untested_versions
from tests.helpers.command import flywheel
from tests.helpers.server import Server
from tests.helpers.waiting import eventually

NAMES = [tweak.name for tweak in TWEAKS]
OF_HAPROXY = {tweak.name for tweak in TWEAKS if tweak.role == "haproxy"}


@pytest.mark.parametrize("name", NAMES)
def test_a_tweak_takes_in_full_mode_and_not_in_stock(server: Server, stock: bool, name: str) -> None:
    if name in OF_HAPROXY and not has_haproxy():
        pytest.skip("Ray brings no HAProxy for this system")
    # A replica that HAProxy has not asked yet has shown nothing of its connections.
    eventually(lambda: server.get("/v2").json()["tuning"]["tweaks"][name] is not stock, 20)


def test_the_server_says_its_mode_and_each_tweak(server: Server, stock: bool) -> None:
    tuning = server.get("/v2").json()["tuning"]
    assert tuning["mode"] == ("stock" if stock else "full")
    assert list(tuning["tweaks"]) == NAMES


def test_status_says_which_tweaks_took(server: Server, stock: bool) -> None:
    said = flywheel("status", "--url", server.url)
    assert said.returncode == 0, said.stderr
    assert ("tuning: stock, Ray Serve as documented" if stock else "tuning: full") in said.stdout


EVERYTHING = frozenset(NAMES)


def test_a_tweak_took_when_every_process_of_its_role_says_so() -> None:
    reports = [("server", EVERYTHING), ("replica", EVERYTHING), ("replica", EVERYTHING), ("haproxy", EVERYTHING)]
    assert set(in_effect(TWEAKS, reports).values()) == {True}
    took = in_effect(TWEAKS, [*reports, ("replica", EVERYTHING - {"bypass"})])
    assert [name for name, yes in took.items() if not yes] == ["bypass"]
    (sentence,) = inactive(took)
    assert sentence.startswith("bypass is not in effect: ")
    took = in_effect(TWEAKS, reports[:-1])  # HAProxy never came
    assert {name for name, yes in took.items() if not yes} == OF_HAPROXY


def test_on_a_cluster_nothing_is_asked_of_processes_that_are_not_ours() -> None:
    assert {tweak.name for tweak in TWEAKS} - {tweak.name for tweak in applied(joins=True)} == {
        "haproxy_stays",
        "idle_processes",
        "lean_imports",
    }


def test_a_report_is_read_while_its_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_recorded", set())
    monkeypatch.setattr(reports, "_file", None)
    reports.record("before")
    reports.start(str(tmp_path), "replica")
    reports.record("after")
    (tmp_path / "tweaks_replica_4194305.json").write_text("[]")  # above the highest process id of Linux
    (tmp_path / "counter_1.db").write_bytes(b"of prometheus-client")
    assert list(reports.read(str(tmp_path))) == [("replica", frozenset({"before", "after"}))]
    assert f"tweaks_replica_{os.getpid()}.json" in os.listdir(tmp_path)


def test_a_version_that_a_tweak_was_not_written_for_is_told() -> None:
    assert untested_versions() == []
    tweak = Tweak("gathering", "uvicorn", "<0.1", "replica", "nothing", "0026")
    (sentence,) = untested_versions([tweak, tweak._replace(target="no-such-package")])
    assert sentence.startswith("gathering was tested with uvicorn <0.1, and 0.")
    assert "stays on" in sentence
