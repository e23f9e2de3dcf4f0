"""Banking77, from beside the repository, with the sentence vectors of the default base model."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.texts import ROOT
from models.curation.embeddings import base_encoder

DATA = ROOT.parent / "shared" / "data" / "banking77"
CACHE = ROOT / "var" / "quality"

Floats = NDArray[np.float32]


class Part(NamedTuple):
    """One file of the data set: texts, their labels, and their sentence vectors of unit length, (texts, 384)."""

    texts: list[str]
    labels: NDArray[np.str_]
    vectors: Floats

    def only(self, rows: NDArray[np.intp]) -> Part:
        return Part([self.texts[i] for i in rows.tolist()], self.labels[rows], self.vectors[rows])


def load(name: str, data: Path = DATA) -> Part:
    """The file `train` or `test`. The vectors take some minutes, once: they are kept in var/quality.

    Exits with 0 and a reason where the data set is missing.
    """
    file = data / f"{name}.csv"
    if not file.exists():
        print(f"skipped: {file} is missing (Banking77, CC BY 4.0: two CSV files with text,label)", file=sys.stderr)
        raise SystemExit(0)
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    texts = [row["text"] for row in rows]
    return Part(texts, np.array([row["label"] for row in rows]), _vectors(name, texts))


def _vectors(name: str, texts: list[str]) -> Floats:
    kept = CACHE / f"banking77-{name}.npz"
    if kept.exists():
        with np.load(kept) as found:
            if found["texts"].tolist() == texts:
                vectors: Floats = found["vectors"]
                return vectors
    vectors = base_encoder()(texts)
    CACHE.mkdir(parents=True, exist_ok=True)
    np.savez(kept, texts=np.array(texts), vectors=vectors)
    return vectors
