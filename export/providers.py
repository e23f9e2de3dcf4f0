"""Execution providers of a session. Imports no onnxruntime, for processes that only pass the setting on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

# On a CPU one SkipLayerNormalization takes longer than the Add and LayerNormalization it replaces
# (docs/decisions/0008-graph.md).
SLOW_ON_CPU = ["SkipLayerNormFusion"]

Providers = Literal["auto", "cpu", "cuda", "tensorrt"]


class GpuOptions(BaseModel):
    """GPU options of a session; ignored on a CPU. docs/gpu.md documents each setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: int = Field(0, ge=0)
    memory_mb: int | None = Field(None, ge=64)
    tf32: bool = True
    cuda_graph: bool = False
