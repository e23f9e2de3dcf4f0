"""GPU support for sessions: provider options, few distinct shapes, and buffers that stay on the device."""

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
    """The `providers` for onnxruntime, best first; each runs the nodes that the ones before it cannot run.

    `engines` is the directory where TensorRT caches its engines.
    """
    if provider == CPU:
        return [(CPU, {})]
    device = {"device_id": str(options.device_id)}
    cuda = device | {"arena_extend_strategy": "kSameAsRequested", "use_tf32": str(int(options.tf32))}
    if options.memory_mb is not None:
        cuda["gpu_mem_limit"] = str(options.memory_mb << 20)
    if provider == CUDA:
        return [(CUDA, cuda | {"enable_cuda_graph": str(int(options.cuda_graph))}), (CPU, {})]
    # No shape profiles: they must name every input of every TensorRT subgraph, and attention splits the graph.
    # Engines are rebuilt for larger shapes; OnnxSession.warm_up runs the extremes.
    tensorrt = {
        "trt_fp16_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
    }
    return [(TENSORRT, device | tensorrt), (CUDA, cuda), (CPU, {})]


def bucket(rows: int, length: int, max_length: int) -> tuple[int, int]:
    """The shape to which a batch of (rows, length) is padded: few distinct shapes, in whole tensor-core tiles.

    Length is rounded up to a multiple of 8, at most `max_length`; rows up to 8 to a power of two,
    more to a multiple of 8.
    """
    rows = 1 << (rows - 1).bit_length() if rows <= 8 else -(-rows // 8) * 8
    return rows, max(length, min(-(-length // 8) * 8, max_length))


class _Buffers(NamedTuple):
    ids: ort.OrtValue
    mask: ort.OrtValue
    output: ort.OrtValue
    binding: ort.IOBinding
    run: ort.RunOptions


class BoundRun:
    """Runs a session with buffers that stay on the device, one set a bucket: one copy in for each input, one out.

    CUDA graphs also need fixed addresses: if the session has `cuda_graph` on, each bucket has its own graph, captured
    at its first run.
    """

    def __init__(self, session: ort.InferenceSession, max_length: int, *, device: str = "cuda", device_id: int = 0):
        self._session = session
        self._longest = max_length
        self._device = (device, device_id)
        self._buffers: dict[tuple[int, int], _Buffers] = {}
        self._lock = threading.Lock()

    def __call__(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Token ids and mask, both (n, length), to the model's output, (n, labels or dimensions). Thread-safe."""
        rows, length = ids.shape
        shape = bucket(rows, length, self._longest)
        padding = (0, shape[0] - rows), (0, shape[1] - length)
        with self._lock:
            buffers = self._buffers.get(shape) or self._allocate(shape)
            buffers.ids.update_inplace(np.pad(ids, padding))
            buffers.mask.update_inplace(np.pad(mask, padding))
            self._session.run_with_iobinding(buffers.binding, buffers.run)
            # A copy, since on a CPU numpy() is a view of the buffer.
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
