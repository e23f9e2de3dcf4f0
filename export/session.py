"""OnnxSession: a Bundle made ready to run on this machine's best provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.bundle import Bundle
from export.tokenizer import TextEncoder, pad

Providers = Literal["auto", "cpu", "cuda"]
# On a CPU one SkipLayerNormalization takes longer than the Add and LayerNormalization it replaces
# (docs/decisions/0008-graph.md).
SLOW_FUSIONS = ["SkipLayerNormFusion"]
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class ProviderError(Exception):
    """Raised when the configuration asks for a provider that this build of onnxruntime does not have."""


def choose_provider(wanted: Providers) -> str:
    """The onnxruntime provider for `wanted`; `auto` takes CUDA where this build and machine have it, else the CPU."""
    has_cuda = _CUDA in ort.get_available_providers()
    if wanted == "cuda" and not has_cuda:
        raise ProviderError(
            "providers: cuda was asked for, but this onnxruntime has no CUDA provider. "
            "Install the gpu extra (pip install 'flywheel-serve[gpu]') or set providers: auto."
        )
    return _CUDA if has_cuda and wanted != "cpu" else _CPU


class OnnxSession:
    """One model in memory. `run` is blocking and thread-safe; call it off the event loop."""

    def __init__(self, bundle: Bundle, *, providers: Providers = "auto", threads: int = 1):
        self.bundle = bundle
        self.provider = choose_provider(providers)
        self.encoder = TextEncoder(bundle.tokenizer_path, bundle.manifest.max_length)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Replicas share the cores: a spinning thread of an idle model would slow the busy one down.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        fallback = [self.provider] if self.provider == _CPU else [self.provider, _CPU]
        self._session = ort.InferenceSession(
            str(bundle.model_path), options, providers=fallback, disabled_optimizers=SLOW_FUSIONS
        )
        self._output = [bundle.manifest.output]

    def run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Token ids of n texts to the model's output, (n, labels or dimensions). Rows are padded to the longest."""
        ids, mask = pad(rows)
        output: NDArray[np.float32] = self._session.run(self._output, {"input_ids": ids, "attention_mask": mask})[0]
        return output

    def warm_up(self) -> None:
        """Run the shapes that serving will see, so that no client pays for the first allocation."""
        longest = self.bundle.manifest.max_length
        for batch, length in ((1, 2), (1, 16), (8, 16), (32, 32), (1, longest)):
            self.run([[0] * min(length, longest)] * batch)

    def predict(self, texts: Sequence[str], *, batch: int = 32) -> NDArray[np.float32]:
        """Texts to outputs in order, batched by length. For evaluation and limits; the server has its own batcher."""
        rows = [encoded.ids for encoded in self.encoder.encode(texts)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        parts = [self.run([rows[i] for i in order[at : at + batch]]) for at in range(0, len(order), batch)]
        stacked = np.concatenate(parts)
        output = np.empty_like(stacked)
        output[order] = stacked
        return output
