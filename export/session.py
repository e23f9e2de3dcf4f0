"""OnnxSession: a Bundle made ready to run on this machine's best provider."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.bundle import Bundle
from export.errors import BundleError, ProviderError
from export.gpu import BoundRun, provider_list
from export.heads import head_of
from export.packed import packed_model
from export.providers import CPU, CUDA, SLOW_ON_CPU, TENSORRT, GpuOptions, Providers
from export.tokenizer import TextEncoder, pad

log = logging.getLogger("flywheel.session")

_ENGINES = ".engines"  # beside the bundles of a task, which never change themselves


def choose_provider(wanted: Providers) -> str:
    """The onnxruntime provider for `wanted`; `auto` takes CUDA where this build has it, else the CPU.

    Raises ProviderError when this build of onnxruntime does not have the one that is named.
    """
    available = ort.get_available_providers()
    if wanted == "auto":
        return CUDA if CUDA in available else CPU
    provider = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}[wanted]
    if provider not in available:
        raise ProviderError(
            f"providers: {wanted} was asked for, but this onnxruntime has no {provider}. "
            "Install the gpu extra (pip install 'flywheel-serve[gpu]') or set providers: auto."
        )
    return provider


class OnnxSession:
    """One model in memory. `run` is blocking and thread-safe; call it off the event loop.

    `provider` is what it runs on. Raises ProviderError when `providers` names one that cannot be had; `auto` then
    takes the CPU, and says so in the log. `shared` is for a process that is one of several on this machine which run
    the model on its CPU: they map one copy of the weights.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        providers: Providers = "auto",
        threads: int = 1,
        gpu: GpuOptions | None = None,
        shared: bool = False,
    ):
        self.bundle = bundle
        self.encoder = TextEncoder(bundle.tokenizer_path, bundle.manifest.max_length)
        gpu = gpu or GpuOptions()
        self._session = _start(bundle, providers, threads, gpu, shared)
        self.provider: str = self._session.get_providers()[0]
        self._output = [bundle.manifest.output]
        longest = bundle.manifest.max_length
        self._bound = BoundRun(self._session, longest, device_id=gpu.device_id) if self.on_gpu else None

    @property
    def on_gpu(self) -> bool:
        return self.provider != CPU

    @property
    def batch_tokens(self) -> int:
        """Padded tokens a batch that suit the provider: few on a CPU, where a longer batch is no faster a token."""
        return 8192 if self.on_gpu else 256

    @property
    def padding_cost(self) -> float:
        """What a token of padding costs, of what any other does (docs/decisions/0019-no-padding.md)."""
        return 0.2 if self.bundle.manifest.skips_padding else 1.0

    def run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Token ids of n texts to the model's output, (n, labels or dimensions). Rows are padded to the longest."""
        ids, mask = pad(rows)
        if self._bound is not None:
            return self._bound(ids, mask)
        output: NDArray[np.float32] = self._session.run(self._output, {"input_ids": ids, "attention_mask": mask})[0]
        return output

    def warm_up(self) -> float:
        """Run the shapes that serving will see, so that no client pays for the first allocation.

        Returns the seconds that a token takes in a batch. Raises BundleError when the outputs have not the shape that
        the manifest says: such a model would fail every request.
        """
        _warn_of_precision(self.bundle.manifest.precision, self.on_gpu)
        longest = self.bundle.manifest.max_length
        # None larger than serving runs: what a run takes of memory stays taken. On a GPU the largest, or TensorRT
        # would build an engine again.
        shapes = [(1, 2), (1, 16), (8, 16), (max(1, self.batch_tokens // longest), longest)]
        if self.on_gpu:
            shapes += [(64, 16)]
        for batch, length in shapes:
            self._check(self.run([[0] * min(length, longest)] * batch).shape, batch)
        return min(self._seconds_of([[0] * 16] * 8) for _ in range(3)) / (16 * 8)  # a starting server is a busy machine

    def _check(self, shape: tuple[int, ...], rows: int) -> None:
        manifest = self.bundle.manifest
        wanted = (rows, head_of(manifest.kind).width(len(manifest.labels), shape[-1] if shape else 0))
        if shape != wanted:
            raise BundleError(f"The bundle {self.bundle.path} is damaged: {rows} texts give {shape}, not {wanted}.")

    def _seconds_of(self, rows: Sequence[Sequence[int]]) -> float:
        started = time.perf_counter()
        self.run(rows)
        return time.perf_counter() - started

    def predict(self, texts: Sequence[str], *, batch: int = 32) -> NDArray[np.float32]:
        """Texts to outputs in order, batched by length. For evaluation and limits; the server has its own batcher."""
        rows = [encoded.ids for encoded in self.encoder.encode(texts)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        parts = [self.run([rows[i] for i in order[at : at + batch]]) for at in range(0, len(order), batch)]
        stacked = np.concatenate(parts)
        output = np.empty_like(stacked)
        output[order] = stacked
        return output


def _start(bundle: Bundle, providers: Providers, threads: int, gpu: GpuOptions, shared: bool) -> ort.InferenceSession:
    wanted = choose_provider(providers)
    reason = "it loaded no library of that provider; its log above says which is missing"
    try:
        session = _open(bundle, wanted, threads, gpu, shared)
        if session.get_providers()[0] == wanted:
            return session
    except Exception as error:  # onnxruntime's own, of a dozen types
        if wanted == CPU:
            raise
        reason = str(error).splitlines()[0]
    sentence = f"{wanted} does not start on this machine; docs/gpu.md says what it needs. onnxruntime: {reason}"
    if providers != "auto":
        raise ProviderError(f"providers: {providers} was asked for, but {sentence}")
    log.warning("Running on the CPU: %s", sentence)
    return _open(bundle, CPU, threads, gpu, shared)


def _open(bundle: Bundle, provider: str, threads: int, gpu: GpuOptions, shared: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Replicas share the cores: a spinning thread of an idle model would slow the busy one down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != CPU:
        ort.preload_dlls(directory="")  # pip's CUDA packages are on no loader's path
    packed = packed_model(bundle) if shared and provider == CPU else None
    if packed is not None:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimized already
    return ort.InferenceSession(
        str(packed or bundle.model_path),
        options,
        providers=provider_list(provider, gpu, bundle.path.parent / _ENGINES),
        disabled_optimizers=SLOW_ON_CPU if provider == CPU else None,
        enable_fallback=0,  # it would go on with the CPU, for good, and print that to standard output
    )


@functools.cache  # once a process, not once a version
def _warn_of_precision(precision: str, on_gpu: bool) -> None:
    if on_gpu and precision == "int8":
        log.warning("An int8 bundle on a GPU: onnxruntime has few int8 kernels there. Export it with --precision fp16.")
    elif not on_gpu and precision == "fp16":
        log.warning("An fp16 bundle on a CPU is computed in fp32. Export it with --precision int8.")
