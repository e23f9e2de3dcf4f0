"""What a session may be asked to run on. Loads no onnxruntime: the processes that only pass it on need none."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

# On a CPU one SkipLayerNormalization takes longer than the Add and LayerNormalization it replaces
# (docs/decisions/0008-graph.md).
SLOW_ON_CPU = ["SkipLayerNormFusion"]

Providers = Literal["auto", "cpu", "cuda", "tensorrt"]


class GpuOptions(BaseModel):
    """How a session uses its GPU; on a CPU nothing of it is read. docs/gpu.md says what each setting does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: int = Field(0, ge=0)
    memory_mb: int | None = Field(None, ge=64)
    tf32: bool = True
    cuda_graph: bool = False
