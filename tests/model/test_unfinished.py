"""Trainings that fail after their last step: the checkpoint is kept, and a later command goes on from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.bundle import Bundle
from export.errors import CheckpointError
from models.data.dataset import load_dataset
from models.releases.release import read_release
from models.training.candidate import TrainingJob
from models.training.pipeline import build_candidate, export_checkpoint, register_candidate
from models.training.unfinished import unfinished_trainings
from tests.helpers.bases import FAMILIES, make_base
from tests.helpers.own_corpus import own_data


def test_a_training_whose_export_fails_is_resumed_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    home, file = tmp_path / "home", own_data(tmp_path)
    base = str(make_base(FAMILIES["bert"], tmp_path / "base"))
    job = TrainingJob("intent", file, "fp32", recipe=(("base", base), ("epochs", 1)))
    with monkeypatch.context() as patch:
        patch.setattr("models.training.pipeline.calibration_sample", fails)
        with pytest.raises(MemoryError):
            build_candidate(job, home, lambda *_: None)
    (folder,) = unfinished_trainings(home, "intent")
    assert f"flywheel train intent --resume {folder}" in caplog.text
    with pytest.raises(CheckpointError, match="is a training of intent, not of sentiment"):
        build_candidate(TrainingJob("sentiment", resume=folder), home, lambda *_: None)

    corpus = load_dataset("intent", file)
    file.unlink()
    weights = (folder / "checkpoint" / "model.safetensors").read_bytes()
    monkeypatch.setattr("models.releases.versions._open", fails)  # MLflow takes seconds, and is tested elsewhere
    candidate = build_candidate(TrainingJob("intent", resume=folder), home, lambda *_: None)
    assert register_candidate(candidate, home) == read_release(home, "intent").champion == "1"
    manifest = Bundle.open(home / "bundles" / "intent" / "1").manifest
    assert (manifest.data, manifest.precision, manifest.base_model) == (corpus.lineage(), "fp32", base)
    checkpoint = home / "checkpoints" / "intent" / "1"
    assert (checkpoint / "model.safetensors").read_bytes() == weights
    assert (checkpoint / "training" / "corpus.md").is_file()
    assert not any((home / "work").iterdir())
    job = TrainingJob("intent", precision="fp16")
    again = export_checkpoint(job, home, checkpoint, tmp_path / "again", manifest).manifest
    assert (again.data, again.precision) == (corpus.lineage(), "fp16"), "without the file, on the corpus of the home"
    with pytest.raises(CheckpointError, match="no complete training to resume"):
        build_candidate(TrainingJob("intent", resume=folder), home, lambda *_: None)
