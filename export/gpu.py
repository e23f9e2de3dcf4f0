"""What a GPU needs around a session: its provider's options, few distinct shapes, and buffers that stay on it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.providers import CPU, CUDA, TENSORRT, GpuOptions

ProviderList = list[tuple[str, dict[str, str]]]


def provider_list(provider: str, options: GpuOptions, engines: Path) -> ProviderList:
    """What onnxruntime is given as `providers`, best first; each takes what the one before it cannot run.

    `engines` is the directory TensorRT keeps its built engines in.
    """
    if provider == CPU:
        return [(CPU, {})]
    device = {"device_id": str(options.device_id)}
    cuda = device | {"arena_extend_strategy": "kSameAsRequested", "use_tf32": str(int(options.tf32))}
    if options.memory_mb is not None:
        cuda["gpu_mem_limit"] = str(options.memory_mb << 20)
    if provider == CUDA:
        return [(CUDA, cuda | {"enable_cuda_graph": str(int(options.cuda_graph))}), (CPU, {})]
    # No shape profiles: they must name every input of every part that TensorRT takes, and attention splits the graph.
    # The engines grow to the shapes that are run; OnnxSession.warm_up runs the extremes.
    tensorrt = {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
    }
    return [(TENSORRT, device | tensorrt), (CUDA, cuda), (CPU, {})]


def bucket(rows: int, length: int, longest: int) -> tuple[int, int]:
    """The shape that a batch of (rows, length) is padded to: few distinct shapes, in whole tiles of a tensor core.

    Length goes up to a multiple of 8, at most `longest`; rows to a power of two, and beyond 8 to a multiple of 8.
    """
    rows = 1 << (rows - 1).bit_length() if rows <= 8 else -(-rows // 8) * 8
    return rows, max(length, min(-(-length // 8) * 8, longest))


class _Buffers(NamedTuple):
    ids: ort.OrtValue
    mask: ort.OrtValue
    output: ort.OrtValue
    binding: ort.IOBinding
    run: ort.RunOptions


class BoundRun:
    """Runs a session through buffers that stay on the device, one set a bucket: one copy in for each input, one out.

    Addresses that never change are also what a CUDA graph needs: where the session has `cuda_graph` on, the run
    option gives each bucket a graph of its own, captured when it is first run.
    """

    def __init__(self, session: ort.InferenceSession, longest: int, *, device: str = "cuda", device_id: int = 0):
        self._session = session
        self._longest = longest
        self._device = (device, device_id)
        self._buffers: dict[tuple[int, int], _Buffers] = {}
        self._lock = threading.Lock()

    def __call__(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Token ids and mask, both (n, length), to the model's output, (n, labels or dimensions). Thread-safe."""
        rows, length = ids.shape
        shape = bucket(rows, length, self._longest)
        spare = (0, shape[0] - rows), (0, shape[1] - length)
        with self._lock:
            buffers = self._buffers.get(shape) or self._allocate(shape)
            buffers.ids.update_inplace(np.pad(ids, spare))
            buffers.mask.update_inplace(np.pad(mask, spare))
            self._session.run_with_iobinding(buffers.binding, buffers.run)
            # Copied, because on a CPU numpy() is a view of the buffer.
            output: NDArray[np.float32] = buffers.output.numpy()[:rows].copy()
        return output

    def _allocate(self, shape: tuple[int, int]) -> _Buffers:
        output = self._session.get_outputs()[0]
        ids, mask = self._empty(shape, np.int64), self._empty(shape, np.int64)
        result = self._empty((shape[0], output.shape[1]), np.float32)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("input_ids", ids)
        binding.bind_ortvalue_input("attention_mask", mask)
        binding.bind_ortvalue_output(output.name, result)
        run = ort.RunOptions()
        run.add_run_config_entry("gpu_graph_id", str(len(self._buffers) + 1))
        buffers = self._buffers[shape] = _Buffers(ids, mask, result, binding, run)
        return buffers

    def _empty(self, shape: tuple[int, int], dtype: type[Any]) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, *self._device)
