"""A version that the disk does not take is not registered, and its files stay where they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.bundle import Lineage
from models.home import bundles_folder
from models.releases.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "what?home 100%25"


def register(home: Path, candidate: Path) -> str:
    for name in ("bundle", "checkpoint"):
        (candidate / name).mkdir(parents=True, exist_ok=True)
        (candidate / name / "file").write_text(name)
    return Registry(home).register(
        "intent", candidate / "bundle", candidate / "checkpoint", parameters={}, metrics={}, losses=[], figures={},
        lineage=Lineage(name="a test", fingerprint="ac03"),
    )  # fmt: skip


def test_a_disk_that_does_not_take_the_files(home: Path, tmp_path: Path) -> None:
    candidate, bundles = tmp_path / "candidate", bundles_folder(home, "intent")
    bundles.parent.mkdir(parents=True)
    bundles.write_text("in the way")  # as good as a full disk: the folder cannot be made
    with pytest.raises(OSError, match="intent"):
        register(home, candidate)
    assert (candidate / "bundle" / "file").read_text() == "bundle"
    assert (candidate / "checkpoint" / "file").read_text() == "checkpoint"
    assert list((home / "checkpoints" / "intent").iterdir()) == []
    assert not Registry(home)._client.search_model_versions("name='intent'")

    bundles.unlink()
    version = register(home, candidate)
    assert (bundles / version / "file").read_text() == "bundle"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["candidate", home.name]  # nothing lies beside the home
