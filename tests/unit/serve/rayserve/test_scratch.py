"""A directory with room for the names of sockets, whatever TMPDIR says."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.config import Config
from serve.rayserve.environment import flags_of_serve
from serve.rayserve.scratch import MAX_BYTES, MAX_BYTES_OF_HAPROXY, choose


@pytest.fixture
def short() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_rays_own_place_is_kept(tmp_path: Path) -> None:
    assert choose(tmp_path) == (Path("/tmp"), "")


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_short_directory_of_the_operator_is_used(
    variable: str, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(short))
    assert choose(tmp_path) == (short, "")


@pytest.mark.parametrize("name", ["x" * 78, "ä" * 15, "two words", 'a"b', "a#b", "a\nb", "a%20b"])
def test_another_is_told_and_left_out(name: str, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = short / name
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    found = choose(tmp_path)
    assert found.folder == Path("/tmp")
    assert found.warning.startswith(f"TMPDIR={folder}: ")
    assert found.warning.endswith("; sockets and logs go to /tmp/ray")


def test_a_socket_fits_below_the_longest_that_is_used(short: Path) -> None:
    """Ray's longest name for a socket, with a process id of seven digits."""
    name = "/ray/session_2026-11-29_11-29-11_123456_4194304/sockets/plasma_store"
    assert MAX_BYTES + len(name) == 107
    of_haproxy = f"/fw-{'x' * 8}/{'f' * 56}/metrics.sock"
    assert MAX_BYTES_OF_HAPROXY + len(of_haproxy) == 97
    assert choose(Path("/home"), MAX_BYTES_OF_HAPROXY).folder == Path("/tmp")


def test_a_directory_whose_ray_cannot_be_written_is_not_used(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short / "ray").write_text("of another program")
    (short / "ray").chmod(0)
    monkeypatch.setenv("TMPDIR", str(short))
    assert choose(tmp_path).folder == short / f"flywheel-{os.getuid()}"


def test_it_takes_no_flag_of_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "RAY_TMPDIR" not in flags_of_serve(Config())
