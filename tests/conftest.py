"""What tests of models and of servers share: the default models, trained once as `make serve` does it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.releases.release import awaits_encoder
from tests.helpers.bases import MakeVersion, Version, finetuned
from tests.helpers.command import ROOT


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tuning", choices=("full", "stock"), default="full", help="ray.tuning of the servers")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_tweak(*names): of rayserve/tweaks.py; skipped with --tuning stock")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"  # httpx asks the environment's proxies
    if config.getoption("--tuning") == "stock":
        os.environ["FLYWHEEL_RAY__TUNING"] = "stock"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--tuning") == "full":
        return
    for item in items:
        if (needs := item.get_closest_marker("needs_tweak")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(needs.args)}, which stock mode leaves out"))


@pytest.fixture(scope="session")
def stock(pytestconfig: pytest.Config) -> bool:
    """Whether the servers are Ray Serve as documented."""
    return bool(pytestconfig.getoption("--tuning") == "stock")


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`var/` of this clone with the default models in it; trained now (some 8 minutes) when it is a fresh clone.

    No first versions, which a server would train beside the tests.
    """
    home = Path(os.environ.get("FLYWHEEL_HOME", ROOT / "var")).resolve()
    script = tmp_path_factory.mktemp("prepare") / "prepare.py"  # a file: its worker processes import it again
    script.write_text(_PREPARE)
    tasks = ("intent", "sentiment", "recommendation")
    if any(not (home / "releases" / f"{task}.json").exists() or awaits_encoder(home, task) for task in tasks):
        subprocess.run(
            [sys.executable, str(script)], cwd=ROOT, env={**os.environ, "FLYWHEEL_HOME": str(home)}, check=True
        )
    return home


_PREPARE = """
from rich.console import Console
from serve.config import load_config
from serve.cli.progress import prepare
if __name__ == "__main__":
    prepare(load_config(), Console())
"""


@pytest.fixture
def home(trained_home: Path, tmp_path: Path) -> Path:
    """A home of a test's own with the default models, which it may promote, damage and delete."""
    copy = tmp_path / "home"
    for folder in ("releases", "bundles"):
        shutil.copytree(trained_home / folder, copy / folder)
    return copy


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """For trainings of tiny models, whose threads wait for each other most of the time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_version(tmp_path_factory: pytest.TempPathFactory) -> MakeVersion:
    """A fine-tuned tiny base of a family, made once."""

    @functools.cache
    def make(name: str, **options: Any) -> Version:
        return finetuned(name, tmp_path_factory.mktemp(name), **options)

    return make


@pytest.fixture(scope="session")
def bundle_of(trained_home: Path) -> Callable[[str], Path]:
    """Task name to the directory of its champion's bundle."""
    from models.releases.release import read_release

    def find(task: str) -> Path:
        release = read_release(trained_home, task)
        return trained_home / release.versions[release.champion]

    return find
