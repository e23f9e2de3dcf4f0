"""The Bundle: everything a server needs to answer with one version of one model, in one directory.

    model.onnx       the graph: `input_ids`, `attention_mask` of shape (batch, length) to one float output
    linear/*.npy     the linear reader (export/linear.py): of classifiers, and of first versions, which have no graph
    towers/*.npy     of a ranker: vectors of the items it was trained with (models/tasks/ranker.py)
    tokenizer.json   the tokenizer, as the `tokenizers` library writes it
    manifest.json    metadata, and the sha256 of every other file
    assets/*.json    further data of the task (answer templates, weights and items of a ranker), the spelling of symbols

A Bundle is immutable. It is verified whenever it is opened, so that an incomplete or damaged directory raises an error
instead of giving wrong answers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from export.errors import BundleError

FORMAT = 5  # 1 had no skips_padding, 2 no attention, notes and symbols, 3 no linear reader, 4 no arrays of a ranker
MODEL, TOKENIZER, MANIFEST = "model.onnx", "tokenizer.json", "manifest.json"
LINEAR = "linear"
"""the folder of the linear reader's arrays"""
TOWERS = "towers"
"""the folder of a ranker's arrays"""
SYMBOLS = "symbols"
"""the asset with the symbols that the tokenizer does not know, and their spelling (export/symbols.py)"""

Precision = Literal["fp32", "int8", "fp16"]
Kind = Literal["classifier", "ranker"]
Attention = Literal["unpadded", "fused", "plain"]
Stage = Literal["linear", "encoder"]
"""one of a classifier's two readers"""


class Record(BaseModel):
    """Part of a manifest. Fields that are None are not written; unknown fields, of later versions, are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


class Lineage(Record):
    """The origin of a version: its data and, for one with a parent, the corrections that it learned."""

    name: str = ""
    """name of the data: its file's, without the suffix"""
    fingerprint: str = ""
    """sha256 of the data with its split"""
    train_rows: int | None = None
    holdout_rows: int | None = None
    items: int | None = None
    """number of items, for a ranker"""
    parent: str | None = None
    """the version whose checkpoint or data it continues from"""
    samples: int | None = None
    """number of new corrections that it learned"""
    samples_fingerprint: str | None = None
    learned_samples: int | None = None
    """number of corrections that its ancestors learned, from which replay is sampled"""
    replayed: int | None = None
    """number of replayed texts, of the data and of learned corrections"""


class Parity(Record):
    """Differences between the exported model and its checkpoint, on `texts` of the holdout."""

    texts: int | None = None
    max_difference_by_shape: dict[str, float] | None = None
    """largest difference of an output on random ids, by `{batch}x{length}`"""
    max_difference: float | None = None
    max_batch_difference: float | None = None
    """largest difference of a score between a text alone and in a batch"""
    labels_moved: float | None = None
    """classifier: share of texts (0 to 1) whose label differs from the checkpoint's"""
    labels_moved_by_batch: int | None = None
    """classifier: number of texts whose label differs between alone and in a batch"""
    mean_cosine: float | None = None
    """ranker: cosine with the checkpoint's vectors"""
    min_cosine: float | None = None


class Blend(Record):
    """Factors of both readers' logits. The softmax of their sum is the answer's calibrated probabilities."""

    encoder: float
    linear: float
    linear_alone: float
    """factor of the linear reader's logits where it answers alone"""


class EarlyAnswers(Record):
    """When the linear reader answers alone: its probability and the share of known n-grams are high enough.

    `share`, `agreement` with the blend and `accuracy` were measured on texts that no reader was trained on.
    """

    above: float
    min_known: float
    label_above: dict[str, float] = {}
    """by label: thresholds above `above`; 1 or more for a label that is never answered early"""
    share: float | None = None
    agreement: float | None = None
    accuracy: float | None = None


class Confidence(Record):
    """From which calibrated scores an answer counts as `high` and as `medium`; None: no score is high enough.

    An answer with just this score is right with the probability that was asked for, or more. Both were derived from
    `texts` that no reader was trained on (models/training/confidence.py).
    """

    high: float | None = None
    medium: float | None = None
    asked_high: float
    asked_medium: float
    texts: int


class LinearRecord(Record):
    """How the linear reader was trained, and how its answers are used."""

    max_ngram: Literal[1, 2]
    sublinear: bool
    regularization: float
    tokenizer: str | None = None
    """sha256 of the bundle's tokenizer, whose token ids it reads"""
    blend: Blend
    early: EarlyAnswers | None = None
    """None when early answers do not pay"""
    confidence: Confidence | None = None
    """of the final answers; None in older versions"""


class Manifest(BaseModel):
    """The metadata of a bundle. `output`: (n, labels) logits of a classifier, (n, width) projections of a ranker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    task: str
    kind: Kind
    labels: tuple[str, ...]
    max_length: int = Field(gt=2, description="tokens, special ones included; longer texts are truncated")
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    output: str = "output"
    precision: Precision
    skips_padding: bool = Field(False, description="the graph computes only attention for padding")
    attention: Attention | None = Field(None, description="how the graph computes attention; None before format 3")
    linear: LinearRecord | None = Field(None, description="the linear reader, if the bundle has one")
    notes: tuple[str, ...] = Field((), description="what a user should know about this version, in sentences")
    base_model: str
    data: Lineage
    metrics: dict[str, Any] = {}
    parity: Parity = Parity()
    created: str
    files: dict[str, str] = Field(description="relative path -> sha256")
    has_encoder: bool = Field(True, description="false for a task's first version, of the linear reader alone")


class Bundle:
    """An opened, verified bundle directory."""

    def __init__(self, path: Path, manifest: Manifest):
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Verify and open. Raises BundleError, whose message names the file and the remedy."""
        path = Path(path)
        manifest = read_manifest(path)
        for required in (MODEL, TOKENIZER) if manifest.has_encoder else (TOKENIZER,):
            if required not in manifest.files:
                raise BundleError(f"The bundle {path} is incomplete: its manifest lists no {required}.")
        if not manifest.has_encoder and manifest.linear is None:
            raise BundleError(f"The bundle {path} is incomplete: it has neither an encoder nor a linear reader.")
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
        """The parsed `assets/<name>.json`, or None if the bundle has no such asset."""
        file = f"assets/{name}.json"
        if file not in self.manifest.files:
            return None
        return orjson.loads((self.path / file).read_bytes())

    def tower(self, name: str) -> NDArray[Any] | None:
        """A ranker's array, not read but mapped, or None if the bundle has no such array. Raises BundleError."""
        file = f"{TOWERS}/{name}.npy"
        if file not in self.manifest.files:
            return None
        try:
            return mapped_array(self.path / file)
        except (OSError, ValueError) as error:
            raise BundleError(f"{file} of the bundle {self.path} cannot be read: {error}. Export it again.") from error


def write_bundle(
    path: Path,
    *,
    model: Path | None,
    tokenizer: Path,
    fields: Mapping[str, Any],
    assets: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]] | None = None,
    towers: Mapping[str, NDArray[Any]] | None = None,
) -> Bundle:
    """Write a bundle atomically: `path` either does not exist or is complete.

    `fields` are the Manifest's; `format`, `files` and `has_encoder` are set here. `arrays` are the linear reader's, by
    name, and `towers` a ranker's. `model` is None for a bundle that has this reader alone. Raises FileExistsError when
    `path` exists.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; a bundle is never changed in place.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".bundle-") as tmp:
        staging = Path(tmp) / "bundle"
        (staging / "assets").mkdir(parents=True)
        if model is not None:
            shutil.copyfile(model, staging / MODEL)
        for folder, named in ((LINEAR, arrays), (TOWERS, towers)):
            for name, array in (named or {}).items():
                (staging / folder).mkdir(exist_ok=True)
                np.save(staging / folder / f"{name}.npy", array)
        shutil.copyfile(tokenizer, staging / TOKENIZER)
        for name, value in assets.items():
            (staging / "assets" / f"{name}.json").write_bytes(orjson.dumps(value))
        files = {
            file.relative_to(staging).as_posix(): sha256_of(file)
            for file in sorted(staging.rglob("*"))
            if file.is_file()
        }
        manifest = Manifest(**{**fields, "format": FORMAT, "files": files, "has_encoder": model is not None})
        (staging / MANIFEST).write_bytes(orjson.dumps(manifest.model_dump(), option=orjson.OPT_INDENT_2))
        os.rename(staging, path)
    return Bundle.open(path)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle at `path`; does not verify the other files. Raises BundleError."""
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


def mapped_array(file: Path) -> NDArray[Any]:
    """The array in `file`, which is not read but mapped. Raises OSError, ValueError."""
    # Not as the memmap that it is: whatever is computed of one is a memmap too, which takes as long as the reading.
    return np.asarray(np.lib.format.open_memmap(file, mode="r"))


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
