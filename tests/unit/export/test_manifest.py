"""What a manifest says of where a version came from and how well it was exported: of today, of before, of later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from export.bundle import MANIFEST, Lineage, Parity, read_manifest

CLASSIFIER: dict[str, Any] = {
    "format": 1,  # of before graphs skipped padding
    "task": "intent",
    "kind": "classifier",
    "labels": ["a", "b"],
    "max_length": 128,
    "inputs": ["input_ids", "attention_mask"],
    "output": "output",
    "precision": "int8",
    "base_model": "sentence-transformers/all-MiniLM-L6-v2",
    "data": {
        "name": "intent",
        "train_rows": 4073,
        "holdout_rows": 542,
        "fingerprint": "ac03",
        "parent": "1",
        "samples": 27,
        "samples_fingerprint": "77aa",
        "learned_samples": 0,
        "replayed": 812,
    },
    "metrics": {"accuracy": 0.9631, "macro_f1": 0.9644},
    "parity": {
        "texts": 542,
        "max_difference_by_shape": {"1x1": 0.1778, "64x128": 0.2953},
        "max_difference": 0.775,
        "max_batch_difference": 2.384185791015625e-07,
        "labels_moved": 0.00369,
        "labels_moved_by_batch": 0,
    },
    "created": "2026-11-29T04:34:30+00:00",
    "files": {},
}
RANKER: dict[str, Any] = {
    **CLASSIFIER,
    "format": 2,
    "task": "recommendation",
    "kind": "ranker",
    "labels": [],
    "skips_padding": True,
    "data": {"name": "interactions", "train_rows": 12800, "holdout_rows": 3200, "items": 360, "fingerprint": "0e4d"},
    "parity": {"texts": 360, "max_difference": 0.0495, "mean_cosine": 0.99563, "min_cosine": 0.98519},
}
OF_LATER = {"name": "intent", "fingerprint": "ac03", "annotators": ["desk", "field"], "weight": None}
CASES = {
    "classifier": CLASSIFIER,
    "ranker": RANKER,
    "nothing measured": {**RANKER, "data": {"name": "own", "fingerprint": "0"}, "parity": {}},
    "of a later version": {**RANKER, "data": OF_LATER, "parity": {"texts": 3, "by_language": {"en": 0.1}}},
}


@pytest.mark.parametrize("written", CASES.values(), ids=CASES.keys())
def test_lineage_and_parity_are_read_and_written_as_they_were(written: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(orjson.dumps(written))
    manifest = read_manifest(tmp_path)
    again = orjson.loads(orjson.dumps(manifest.model_dump()))
    for part in ("data", "parity"):
        assert again[part] == {key: value for key, value in written[part].items() if value is not None}
    assert (manifest.data.name, manifest.data.fingerprint) == (written["data"]["name"], written["data"]["fingerprint"])


def test_what_is_known_has_its_type(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(orjson.dumps(CLASSIFIER))
    manifest = read_manifest(tmp_path)
    assert (manifest.data.parent, manifest.data.samples, manifest.data.items) == ("1", 27, None)
    assert (manifest.parity.labels_moved, manifest.parity.mean_cosine) == (0.00369, None)


def test_what_was_not_recorded_is_absent_and_not_null() -> None:
    assert Lineage(name="own", fingerprint="0").model_dump() == {"name": "own", "fingerprint": "0"}
    assert Parity().model_dump() == {}
