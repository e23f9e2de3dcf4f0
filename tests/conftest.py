"""What tests of models and of servers share: the default models, trained once as `make serve` does it.

In a fresh clone that takes some 8 minutes. Tests that need no trained model run meanwhile: see `turn`.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.bases import MakeVersion, Version, finetuned
from tests.helpers.command import ROOT
from tests.helpers.default_models import DefaultModels


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tuning", choices=("full", "stock"), default="full", help="ray.tuning of the servers")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_tweak(*names): of rayserve/tweaks.py; skipped with --tuning stock")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"  # httpx asks the environment's proxies
    if config.getoption("--tuning") == "stock":
        os.environ["FLYWHEEL_RAY__TUNING"] = "stock"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=turn)
    if config.getoption("--tuning") == "full":
        return
    for item in items:
        if (needs := item.get_closest_marker("needs_tweak")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(needs.args)}, which stock mode leaves out"))


def turn(item: pytest.Item) -> int:
    """0: runs while the default models are trained. 1: needs them, so that the first of these waits. 2: after those.

    Tests of threads, sockets, deadlines and processes are not to meet a training: they are in the folders of the last
    turn.
    """
    if "trained_home" in getattr(item, "fixturenames", ()):
        return 1
    beside = item.nodeid.startswith(("tests/model/", "tests/unit/")) and not item.nodeid.startswith("tests/unit/serve/")
    return 0 if beside else 2


@pytest.fixture(scope="session")
def stock(pytestconfig: pytest.Config) -> bool:
    """Whether the servers are Ray Serve as documented."""
    return bool(pytestconfig.getoption("--tuning") == "stock")


@pytest.fixture(scope="session", autouse=True)
def default_models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DefaultModels]:
    """Begins to train the default models when they are missing and one of the tests to be run needs them."""
    home = Path(os.environ.get("FLYWHEEL_HOME", ROOT / "var")).resolve()
    models = DefaultModels(home, tmp_path_factory.mktemp("training"))
    if any(turn(item) == 1 for item in request.session.items) and models.are_missing():
        models.start_training()
    yield models
    models.stop()


@pytest.fixture(scope="session")
def trained_home(default_models: DefaultModels) -> Path:
    """`var/` of this clone with the default models in it; a fresh clone trains them, some 8 minutes."""
    default_models.wait()
    return default_models.home


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
