"""What the tests stand on: the default models, trained once as `make serve` does it, and one real server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 180


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tuning", choices=("full", "stock"), default="full", help="ray.tuning of the servers")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_tweak(*names): of rayserve/tweaks.py; skipped with --tuning stock")
    if config.getoption("--tuning") != "full":
        os.environ["FLYWHEEL_RAY__TUNING"] = config.getoption("--tuning")


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


@dataclass
class Server:
    """A running `flywheel up`: its address, its process and its home."""

    url: str
    process: subprocess.Popen[str]
    home: Path

    def post(self, path: str, **kwargs: object) -> httpx.Response:
        return httpx.post(self.url + path, timeout=30, **kwargs)  # type: ignore[arg-type]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30)


def flywheel(*args: str, home: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the `flywheel` command as a user does; never raises on a non-zero exit."""
    env = {**os.environ, **({"FLYWHEEL_HOME": str(home)} if home else {}), "COLUMNS": "200"}
    return subprocess.run(
        [Path(sys.executable).parent / "flywheel", *args],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(home: Path, log: Path, **environment: str) -> Server:
    """`flywheel up` on a free port, ready; its output goes to `log`."""
    port = free_port()
    env = {**os.environ, "FLYWHEEL_HOME": str(home), **environment}
    with log.open("w") as output:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "flywheel", "up", "--port", str(port)],
            cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
    server = Server(f"http://127.0.0.1:{port}", process, home)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}:\n{log.read_text()}")
        try:
            if server.get("/v2/health/ready").status_code == 200 and "ready" in log.read_text():
                return server
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    stop_server(server)
    raise AssertionError(f"the server was not ready within {START_TIMEOUT_S} s:\n{log.read_text()}")


def stop_server(server: Server, timeout: float = 30) -> int:
    """SIGINT, as Ctrl-C sends it; the exit code."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
    try:
        return server.process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(server.process.pid, signal.SIGKILL)
        raise


def small_classifier(longest: int) -> tuple[Any, Any]:
    """An untrained TextModel of two layers and five labels, always the same, and the default base's tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    from export.base_model import DEFAULT_BASE
    from export.checkpoint import TextModel, load_base

    _, tokenizer = load_base(DEFAULT_BASE)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=longest, **size)
    return TextModel(BertModel(config, add_pooling_layer=False), 5).eval(), tokenizer


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`var/` of this clone with the default models in it; trained now (about 4 minutes) when it is a fresh clone."""
    home = Path(os.environ.get("FLYWHEEL_HOME", ROOT / "var")).resolve()
    script = tmp_path_factory.mktemp("prepare") / "prepare.py"  # a file: its worker processes import it again
    script.write_text(_PREPARE)
    if not all((home / "releases" / f"{task}.json").exists() for task in ("intent", "sentiment", "recommendation")):
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


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a user trained the intent task on own data; only to be read."""
    from tests.own_corpus import own_data

    home = tmp_path_factory.mktemp("parent")
    done = flywheel("train", "intent", "--data", str(own_data(home)), "--epochs", "4", home=home, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not any((home / "work").iterdir())
    assert list((home / "bundles" / "intent" / ".packed" / "1").glob("*/weights.bin"))
    (home / "version1.txt").write_text(done.stdout)
    return home


@pytest.fixture(scope="session")
def server(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that only ask; a test that breaks things starts its own with `start_server`."""
    folder = tmp_path_factory.mktemp("server")
    home = folder / "home"
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, home / part)
    running = start_server(home, folder / "server.log")
    yield running
    assert stop_server(running) == 0


@pytest.fixture(scope="session")
def own_server(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose releases and processes test_haproxy.py and then test_lifecycle.py break; the last test ends it."""
    folder = tmp_path_factory.mktemp("own_server")
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, folder / "home" / part)
    running = start_server(folder / "home", folder / "server.log")
    time.sleep(3)  # Serve replaces HAProxy once more about when it is ready, and its counts begin anew
    yield running
    if running.process.poll() is None:
        stop_server(running)


@pytest.fixture(scope="session")
def bundle_of(trained_home: Path) -> Callable[[str], Path]:
    """Task name to the directory of its champion's bundle."""
    from models.releases.release import read_release

    def find(task: str) -> Path:
        release = read_release(trained_home, task)
        return trained_home / release.versions[release.champion]

    return find
