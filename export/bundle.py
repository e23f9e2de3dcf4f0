"""The Bundle: everything a server needs to answer with one version of one model, in one directory.

    model.onnx       the graph: `input_ids`, `attention_mask` of shape (batch, length) to one float output
    tokenizer.json   the tokenizer, as the `tokenizers` library writes it
    manifest.json    what the two are, and the sha256 of every other file
    assets/*.json    what the task needs beside the model (answer templates, ranking weights)

A Bundle is written once and never changed. It is verified whenever it is opened, so a half-copied or damaged
directory is refused with a sentence instead of answering wrongly.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from export.errors import BundleError

FORMAT = 2  # 1 had no skips_padding
MODEL, TOKENIZER, MANIFEST = "model.onnx", "tokenizer.json", "manifest.json"

Precision = Literal["fp32", "int8", "fp16"]
Kind = Literal["classifier", "ranker"]


class Record(BaseModel):
    """Part of a manifest. What is None is not written, and what a later version added is kept as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


class Lineage(Record):
    """Where a version came from: the data, and for one that continues from another, what it learned beside it."""

    name: str = ""
    """of the data: its file's, without the ending"""
    fingerprint: str = ""
    """sha256 of the data with its split"""
    train_rows: int | None = None
    holdout_rows: int | None = None
    items: int | None = None
    """of a ranker's catalogue"""
    parent: str | None = None
    """the version whose checkpoint or data it continues from"""
    samples: int | None = None
    """corrections that it learned"""
    samples_fingerprint: str | None = None
    learned_samples: int | None = None
    """corrections of earlier versions that were learned again, or could have been"""
    replayed: int | None = None
    """old texts, of the data and of learned corrections, that a continued training has seen again"""


class Parity(Record):
    """How far the exported model's answers are from the checkpoint's, on `texts` of the holdout."""

    texts: int | None = None
    max_difference_by_shape: dict[str, float] | None = None
    """of an output, on random ids; by `{batch}x{length}`"""
    max_difference: float | None = None
    max_batch_difference: float | None = None
    """of a score, between a text alone and in a batch"""
    labels_moved: float | None = None
    """share of texts that got another label; of a classifier, as is the next"""
    labels_moved_by_batch: int | None = None
    mean_cosine: float | None = None
    """of vectors; of a ranker, as is the next"""
    min_cosine: float | None = None


class Manifest(BaseModel):
    """What is in a bundle. `output` is (n, labels) logits for a classifier, (n, dimensions) vectors for a ranker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    task: str
    kind: Kind
    labels: tuple[str, ...]
    max_length: int = Field(gt=2, description="tokens, special ones included; longer texts are truncated")
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    output: str = "output"
    precision: Precision
    skips_padding: bool = Field(False, description="the graph computes nothing but attention for padding")
    base_model: str
    data: Lineage
    metrics: dict[str, Any] = {}
    parity: Parity = Parity()
    created: str
    files: dict[str, str] = Field(description="relative path -> sha256")


class Bundle:
    """An opened, verified bundle directory."""

    def __init__(self, path: Path, manifest: Manifest):
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Verify and open. Raises BundleError, whose text names the file and what to do."""
        path = Path(path)
        manifest = read_manifest(path)
        for required in (MODEL, TOKENIZER):
            if required not in manifest.files:
                raise BundleError(f"The bundle {path} is incomplete: its manifest lists no {required}.")
        for name, digest in manifest.files.items():
            file = path / name
            if "\0" in name or not file.resolve().is_relative_to(path.resolve()):
                raise BundleError(f"The bundle {path} is damaged: its manifest points outside it ({name}).")
            if not file.is_file():
                raise BundleError(f"The bundle {path} is incomplete: {name} is missing. Export the model again.")
            if sha256_of(file) != digest:
                raise BundleError(
                    f"The bundle {path} is damaged: the checksum of {name} does not match its manifest. "
                    "Copy it again, or export the model again."
                )
        return cls(path, manifest)

    @property
    def model_path(self) -> Path:
        return self.path / MODEL

    @property
    def tokenizer_path(self) -> Path:
        return self.path / TOKENIZER

    def asset(self, name: str) -> Any:
        """The parsed `assets/<name>.json`, or None when this bundle has none of that name."""
        file = f"assets/{name}.json"
        if file not in self.manifest.files:
            return None
        return orjson.loads((self.path / file).read_bytes())


def write_bundle(
    path: Path, *, model: Path, tokenizer: Path, fields: Mapping[str, Any], assets: Mapping[str, Any]
) -> Bundle:
    """Write a bundle so that `path` either does not exist or is whole: files first, one rename last.

    `fields` are the Manifest's, except `format` and `files`. Raises FileExistsError when `path` exists.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; a bundle is never changed in place.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".bundle-") as tmp:
        staging = Path(tmp) / "bundle"
        (staging / "assets").mkdir(parents=True)
        shutil.copyfile(model, staging / MODEL)
        shutil.copyfile(tokenizer, staging / TOKENIZER)
        for name, value in assets.items():
            (staging / "assets" / f"{name}.json").write_bytes(orjson.dumps(value))
        files = {
            file.relative_to(staging).as_posix(): sha256_of(file)
            for file in sorted(staging.rglob("*"))
            if file.is_file()
        }
        manifest = Manifest(format=FORMAT, files=files, **fields)
        (staging / MANIFEST).write_bytes(orjson.dumps(manifest.model_dump(), option=orjson.OPT_INDENT_2))
        os.rename(staging, path)
    return Bundle.open(path)


def read_manifest(path: Path) -> Manifest:
    """What the bundle at `path` says of itself; its files are not looked at. Raises BundleError."""
    file = path / MANIFEST
    if not file.is_file():
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}.")
    try:
        raw = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise BundleError(f"The bundle {path} is damaged: {MANIFEST} is not JSON ({error}).") from error
    found = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise BundleError(
            f"The bundle {path} has format {found}; this Flywheel reads up to {FORMAT}. Upgrade flywheel-serve."
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise BundleError(f"The bundle {path} is damaged: {MANIFEST}, {where}: {first['msg']}.") from error


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
