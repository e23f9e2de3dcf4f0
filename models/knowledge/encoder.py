"""Vectors of sentences: the default base encoder as it is, not fine-tuned, in a bundle of its own.

It is made when the first entry comes (make_encoder.py), and read by the control application, which computes the vectors
of questions, and by replicas, which compute those of texts. Why not the served encoder:
docs/decisions/0048-knowledge.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.bundle import MANIFEST, Bundle
from export.session import OnnxSession
from export.tokenizer import Ids
from models.home import sentence_encoder_folder

Vector = NDArray[np.float32]
"""(dimensions,), of unit length"""


class SentenceEncoder:
    """The encoder in memory. `vector` blocks and is thread-safe."""

    def __init__(self, bundle: Bundle):
        self._session = OnnxSession(bundle, providers="cpu", shared=True)
        self.fingerprint = bundle.manifest.data.fingerprint
        """of what it was made from: vectors of two encoders cannot be compared"""

    @classmethod
    def open(cls, home: Path) -> SentenceEncoder | None:
        """The encoder of this home; None before it is made. Raises BundleError, and what onnxruntime raises."""
        folder = sentence_encoder_folder(home)
        return cls(Bundle.open(folder)) if (folder / MANIFEST).is_file() else None

    def tokens(self, texts: Sequence[str]) -> list[Ids]:
        """The token ids of each text."""
        return [encoded.ids for encoded in self._session.encoder.encode(texts)]

    def vector(self, ids: Ids) -> Vector:
        """The vector of one text. A text is always computed alone, so that its vector is always the same."""
        return _unit(self._session.run([ids])[0])

    def stored(self, texts: Sequence[str]) -> list[bytes]:
        """The vectors of the texts as the store keeps them, in fp16."""
        return [_unit(row).astype(np.float16).tobytes() for row in self._session.predict(texts)]


def _unit(vector: Vector) -> Vector:
    return vector / np.float32(max(float(np.sqrt(np.add.reduce(vector * vector))), 1e-9))
