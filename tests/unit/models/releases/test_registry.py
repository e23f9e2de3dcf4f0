"""MLflow's database is made completely or not at all, and what is wrong with it stops no move."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.releases.registry import Registry
from models.releases.release import make_release, read_release, write_release
from tests.helpers.bare_run import bundle
from tests.helpers.registry import mlflow_client

# MLflow reads its database with a loader that SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

_OPEN = """
import sys
from pathlib import Path
from models.releases.registry import Registry
Registry(Path(sys.argv[1])).newest("intent")
"""
_WITHOUT_MLFLOW = """
import sys
sys.modules["mlflow"] = None
from serve.cli.main import main
main()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of two versions, of which the second serves."""
    for version in ("1", "2"):
        bundle(tmp_path / "bundles" / "intent" / version)
    write_release(tmp_path, make_release(tmp_path, "intent", "2", previous="1"))
    return tmp_path


def test_processes_that_make_the_database_together_or_are_killed_at_it_leave_a_whole_one(tmp_path: Path) -> None:
    def opened() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _OPEN, str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    killed, until = opened(), time.monotonic() + 60
    while not any(path.is_file() and path.stat().st_size for path in tmp_path.rglob("*mlflow.db*")):
        assert killed.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    killed.kill()
    killed.communicate()

    for process in [opened(), opened()]:
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 0, said
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}
    assert mlflow_client(tmp_path).search_registered_models() == []


def test_a_move_is_made_where_mlflow_cannot_read_its_database(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "mlflow.db").write_bytes(b"this was a database" * 1000)
    assert not Registry(home).follow("intent")
    assert "MLflow's aliases of intent could not be set" in caplog.text


def test_a_rollback_without_mlflow_says_nothing_of_it(home: Path) -> None:
    command = [sys.executable, "-c", _WITHOUT_MLFLOW, "rollback", "intent"]
    done = subprocess.run(command, env={"FLYWHEEL_HOME": str(home)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "version 1 is the champion" in done.stdout
    assert "MLflow" not in done.stdout + done.stderr
    assert read_release(home, "intent").champion == "1"
