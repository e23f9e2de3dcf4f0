"""Cores and memory of a container, and the user's name where there is none."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from export import machine
from export.machine import usable_cores, usable_memory, usable_threads
from tests.helpers.command import ROOT

GB = 1 << 30
V1 = "4:memory:/docker/ab\n3:cpuset:/\n2:cpu,cpuacct:/docker/ab\n0::/\n"
V2 = "0::/system.slice/flywheel.service\n"


def tree(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")


@pytest.mark.parametrize(
    ("membership", "files", "cores", "memory"),
    [
        (V2, {"system.slice/flywheel.service/cpu.max": "100000 100000"}, 1, None),
        (V2, {"system.slice/cpu.max": "50000 100000", "system.slice/flywheel.service/cpu.max": "max 100000"}, 1, None),
        (V2, {"system.slice/flywheel.service/memory.max": str(GB), "system.slice/memory.max": "max"}, None, GB),
        (V2, {"system.slice/flywheel.service/memory.max": str(GB), "memory.max": str(GB // 2)}, None, GB // 2),
        ("0::/\n", {"cpu.max": "150000 100000", "memory.max": str(GB)}, 2, GB),  # as a container sees itself
        (V1, {"cpu/docker/ab/cpu.cfs_quota_us": "100000", "cpu/docker/ab/cpu.cfs_period_us": "100000"}, 1, None),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "20000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 1, None),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "memory/memory.limit_in_bytes": "9223372036854771712"}, None, None),
        (V1, {"memory/docker/ab/memory.limit_in_bytes": str(GB)}, None, GB),
        (V1, {"memory/memory.limit_in_bytes": str(GB)}, None, GB),  # the container's own is the mount's root
        ("", {}, None, None),
    ],
)
def test_the_limits_of_cgroups_are_read(
    membership: str, files: dict[str, str], cores: int | None, memory: int | None,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own_cores, own_memory = len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "membership").write_text(membership)
    tree(tmp_path / "cgroup", files)
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    assert usable_cores() == min(cores or own_cores, own_cores)
    assert usable_memory() == (memory or own_memory)


@pytest.mark.parametrize(("text", "threads"), [("100\n", 100), ("max\n", math.inf)])
def test_the_limit_of_threads_is_read(
    text: str, threads: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "membership").write_text("0::/\n")
    tree(tmp_path / "cgroup", {"pids.max": text})
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    assert usable_threads() == threads


@pytest.fixture
def small_cgroup() -> Iterator[list[Path]]:
    """A cgroup of one core and 1.5 GB; its files to which a process writes itself."""
    v1 = [Path("/sys/fs/cgroup/cpu/flywheel-test"), Path("/sys/fs/cgroup/memory/flywheel-test")]
    v2 = Path("/sys/fs/cgroup/flywheel-test")
    made = v1 if v1[0].parent.is_dir() else [v2]
    try:
        for folder in made:
            folder.mkdir(exist_ok=True)
        if made == v1:
            (v1[0] / "cpu.cfs_quota_us").write_text("100000")
            (v1[1] / "memory.limit_in_bytes").write_text("1500000000")
        else:
            (v2 / "cpu.max").write_text("100000 100000")
            (v2 / "memory.max").write_text("1500000000")
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield [folder / "cgroup.procs" for folder in made]
    for folder in made:
        folder.rmdir()


def test_a_real_cgroup_is_seen_by_a_process_in_it(small_cgroup: list[Path]) -> None:
    program = "from export.machine import *; print(usable_cores(), round(usable_memory() / 1e8))"
    joins = "; ".join(f"echo $$ > {file}" for file in small_cgroup)
    found = subprocess.run(
        ["sh", "-c", f'{joins}; exec "$0" -c "$1"', sys.executable, program],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "1 15\n"


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can become a user without a name"
)
def test_a_user_without_a_name_is_named_by_id() -> None:
    command = ["setpriv", "--reuid=54321", "--clear-groups", "--inh-caps=+dac_read_search"]
    command += ["--ambient-caps=+dac_read_search", "env", "-i", sys.executable, "-c"]
    found = subprocess.run(
        [*command, "from export.machine import user_name; print(user_name())"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout == "uid 54321\n"
