"""OnnxSession: runs a Bundle's model on an execution provider of this machine."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.bundle import SYMBOLS, Bundle
from export.errors import BundleError, ProviderError
from export.gpu import BoundRun, provider_list
from export.heads import head_of
from export.packed import packed_model
from export.providers import CPU, CUDA, SLOW_ON_CPU, TENSORRT, GpuOptions, Providers
from export.tokenizer import Ids, TextEncoder, pad

log = logging.getLogger("flywheel.session")

_ENGINES = ".engines"  # beside the bundles of a task, since bundles are immutable


def choose_provider(requested: Providers) -> str:
    """The onnxruntime provider for `requested`; `auto` is CUDA if this build has it, else the CPU.

    Raises ProviderError when this build of onnxruntime does not have the requested one.
    """
    available = ort.get_available_providers()
    if requested == "auto":
        return CUDA if CUDA in available else CPU
    provider = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}[requested]
    if provider not in available:
        raise ProviderError(
            f"providers: {requested} was asked for, but this onnxruntime has no {provider}. "
            "Install the gpu extra (pip install 'flywheel-serve[gpu]') or set providers: auto."
        )
    return provider


def text_encoder(bundle: Bundle) -> TextEncoder:
    """The tokenizer of the bundle."""
    return TextEncoder(bundle.tokenizer_path, bundle.manifest.max_length, bundle.asset(SYMBOLS))


def run_by_length(
    run: Callable[[Sequence[Ids]], NDArray[np.float32]], rows: Sequence[Ids], batch: int = 32
) -> NDArray[np.float32]:
    """The outputs of `run`, in the order of `rows`, computed in batches of similar length."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    stacked = np.concatenate([run([rows[i] for i in order[at : at + batch]]) for at in range(0, len(order), batch)])
    output = np.empty_like(stacked)
    output[order] = stacked
    return output


class OnnxSession:
    """One model in memory. `run` blocks and is thread-safe; the batcher decides where it runs.

    `provider` is the one in use. Raises ProviderError when `providers` names one that is not available; `auto` then
    falls back to the CPU, with a warning in the log. With `shared`, processes that run the model on the CPU of one
    machine map one copy of the weights.
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
        self.encoder = text_encoder(bundle)
        gpu = gpu or GpuOptions()
        self._session = _create_session(bundle, providers, threads, gpu, shared)
        self.provider: str = self._session.get_providers()[0]
        self._output = [bundle.manifest.output]
        max_length = bundle.manifest.max_length
        self._bound = BoundRun(self._session, max_length, device_id=gpu.device_id) if self.on_gpu else None

    @property
    def on_gpu(self) -> bool:
        return self.provider != CPU

    @property
    def batch_tokens(self) -> int:
        """The best number of padded tokens a batch: few on a CPU, where a larger batch is no faster a token."""
        return 8192 if self.on_gpu else 256

    @property
    def padding_cost(self) -> float:
        """The cost of a padding token relative to another token (docs/decisions/0019-no-padding.md)."""
        return 0.2 if self.bundle.manifest.skips_padding else 1.0

    def run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Token ids of n texts to the model's output, (n, labels or dimensions). Rows are padded to the longest."""
        ids, mask = pad(rows)
        if self._bound is not None:
            return self._bound(ids, mask)
        output: NDArray[np.float32] = self._session.run(self._output, {"input_ids": ids, "attention_mask": mask})[0]
        return output

    def warm_up(self) -> float:
        """Run the shapes that serving uses, so that no request waits for the first allocation.

        Returns the seconds a token in a batch. Raises BundleError when the outputs do not have the shape of the
        manifest: such a model would fail every request.
        """
        _warn_of_precision(self.bundle.manifest.precision, self.on_gpu)
        max_length = self.bundle.manifest.max_length
        # None larger than in serving, since memory of a run is not freed. On a GPU the largest, so that TensorRT does
        # not rebuild an engine later.
        shapes = [(1, 2), (1, 16), (8, 16), (max(1, self.batch_tokens // max_length), max_length)]
        if self.on_gpu:
            shapes += [(64, 16)]
        for batch, length in shapes:
            self._check(self.run([[0] * min(length, max_length)] * batch).shape, batch)
        return min(self._seconds_of([[0] * 16] * 8) for _ in range(3)) / (
            16 * 8
        )  # the fastest: at the start of a server the machine is busy

    def _check(self, shape: tuple[int, ...], rows: int) -> None:
        manifest = self.bundle.manifest
        requested = (rows, head_of(manifest.kind).width(len(manifest.labels), shape[-1] if shape else 0))
        if shape != requested:
            raise BundleError(f"The bundle {self.bundle.path} is damaged: {rows} texts give {shape}, not {requested}.")

    def _seconds_of(self, rows: Sequence[Sequence[int]]) -> float:
        started = time.perf_counter()
        self.run(rows)
        return time.perf_counter() - started

    def predict(self, texts: Sequence[str], *, batch: int = 32) -> NDArray[np.float32]:
        """Texts to outputs, (n, labels or dimensions), in order; batched by length. The server has its own batcher."""
        return run_by_length(self.run, [encoded.ids for encoded in self.encoder.encode(texts)], batch)


def _create_session(
    bundle: Bundle, providers: Providers, threads: int, gpu: GpuOptions, shared: bool
) -> ort.InferenceSession:
    requested = choose_provider(providers)
    reason = "it loaded no library of that provider; its log above says which is missing"
    try:
        session = _open_session(bundle, requested, threads, gpu, shared)
        if session.get_providers()[0] == requested:
            return session
    except Exception as error:  # onnxruntime raises a dozen types
        if requested == CPU:
            raise
        reason = str(error).splitlines()[0]
    sentence = f"{requested} does not start on this machine; docs/gpu.md says what it needs. onnxruntime: {reason}"
    if providers != "auto":
        raise ProviderError(f"providers: {providers} was asked for, but {sentence}")
    log.warning("Running on the CPU: %s", sentence)
    return _open_session(bundle, CPU, threads, gpu, shared)


def _open_session(bundle: Bundle, provider: str, threads: int, gpu: GpuOptions, shared: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Replicas share the cores: spinning threads of an idle model would slow down a busy one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != CPU:
        ort.preload_dlls(directory="")  # CUDA libraries from pip are not on the loader's path
    packed = packed_model(bundle) if shared and provider == CPU else None
    if packed is not None:
        options.graph_optimization_level = (
            ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        )  # a packed model is already optimized
    return ort.InferenceSession(
        str(packed or bundle.model_path),
        options,
        providers=provider_list(provider, gpu, bundle.path.parent / _ENGINES),
        disabled_optimizers=SLOW_ON_CPU if provider == CPU else None,
        enable_fallback=0,  # it would fall back to the CPU silently but for a print to stdout
    )


@functools.cache  # once a process, not once a version
def _warn_of_precision(precision: str, on_gpu: bool) -> None:
    if on_gpu and precision == "int8":
        log.warning("An int8 bundle on a GPU: onnxruntime has few int8 kernels there. Export it with --precision fp16.")
    elif not on_gpu and precision == "fp16":
        log.warning("An fp16 bundle on a CPU is computed in fp32. Export it with --precision int8.")
