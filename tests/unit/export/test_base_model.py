"""Where a base model's weights are."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest

from export.base_model import resolve_base
from export.errors import CheckpointError


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder in the hub's cache, empty."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    model, commit = tmp_path / "models--acme--tiny", "a" * 40
    folder = model / "snapshots" / commit
    folder.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    return folder


def test_a_model_that_the_hub_s_cache_has_whole_needs_no_network(snapshot: Path) -> None:
    for file in ("config.json", "tokenizer.json"):
        (snapshot / file).write_text("{}")
        assert resolve_base("acme/tiny") == "acme/tiny", "the hub has the rest"
    (snapshot / "model.safetensors").write_bytes(b"")
    assert resolve_base("acme/tiny") == str(snapshot)
    assert resolve_base("acme/other") == "acme/other"
    assert resolve_base("no name of the hub") == "no name of the hub"


@pytest.mark.parametrize("path", ["./encoder", "../encoder", "/srv/encoder", "~/encoder", "models/bert/checkpoint"])
def test_a_path_without_a_directory_is_told_at_once(path: str) -> None:
    with pytest.raises(CheckpointError, match=f"There is no directory '{path}'"):
        resolve_base(path)
