"""The exported intent bundle run by onnxruntime and tokenizers alone, for the peers' servers.

It has none of Flywheel's batching: texts are padded to the longest of their batch. The servers run as scripts in their
own environments and import this file as `model`, because `running` sets PYTHONPATH to this folder. A peer's folder must
therefore not be a package: `import fastapi` would find it before the real one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

OUT_OF_SCOPE = "out_of_scope"


class Model:
    def __init__(self, bundle: Path, threads: int = 1):
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        self.labels: list[str] = manifest["labels"]
        self._output: str = manifest["output"]
        self._tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(manifest["max_length"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """`{"label", "score"}` of each text, in order."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        (logits,) = self._session.run([self._output], {"input_ids": ids, "attention_mask": mask})
        exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return [self._prediction(scores) for scores in exponent / exponent.sum(axis=-1, keepdims=True)]

    def _prediction(self, scores: Any) -> dict[str, Any]:
        best = int(scores.argmax())
        if self.labels[best] == OUT_OF_SCOPE and scores[best] < 0.5:  # the intent task's rule, so that answers compare
            best = int(np.argsort(-scores, kind="stable")[1])
        return {"label": self.labels[best], "score": round(float(scores[best]), 6)}
