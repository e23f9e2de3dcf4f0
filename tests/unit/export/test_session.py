"""The session's choice of provider, and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from pydantic import ValidationError

from export.errors import ProviderError
from export.gpu import bucket, provider_list
from export.providers import CPU, CUDA, TENSORRT, GpuOptions
from export.session import choose_provider
from serve.config import ConfigError, SessionConfig, load_config

LONGEST = 60  # not a multiple of 8, and the model has not one position more


def has(*providers: str) -> Any:
    return lambda: list(providers)


@pytest.mark.parametrize(
    ("wanted", "available", "chosen"),
    [
        ("auto", (CPU,), CPU),
        ("auto", (CUDA, CPU), CUDA),
        ("auto", (TENSORRT, CUDA, CPU), CUDA),
        ("cpu", (TENSORRT, CUDA, CPU), CPU),
        ("cuda", (CUDA, CPU), CUDA),
        ("tensorrt", (TENSORRT, CUDA, CPU), TENSORRT),
    ],
)
def test_the_provider_is_what_the_build_has(
    wanted: Any, available: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", has(*available))
    assert choose_provider(wanted) == chosen


@pytest.mark.parametrize("wanted", ["cuda", "tensorrt"])
def test_a_provider_the_build_has_not_is_an_error_that_says_what_to_do(
    wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", has(CPU))
    with pytest.raises(ProviderError, match=rf"providers: {wanted} was asked for.*gpu extra.*providers: auto"):
        choose_provider(wanted)


def test_provider_options() -> None:
    engines = Path("engines")
    assert provider_list(CPU, GpuOptions(memory_mb=512), engines) == [(CPU, {})]
    (cuda, options), last = provider_list(CUDA, GpuOptions(device_id=1, memory_mb=512, cuda_graph=True), engines)
    assert (cuda, last) == (CUDA, (CPU, {}))
    assert options == {
        "device_id": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "1",
        "gpu_mem_limit": str(512 * 1024 * 1024),
        "enable_cuda_graph": "1",
    }
    assert "gpu_mem_limit" not in provider_list(CUDA, GpuOptions(), engines)[0][1]
    best, second, last = provider_list(TENSORRT, GpuOptions(tf32=False), engines)
    assert (best[0], second[0], last) == (TENSORRT, CUDA, (CPU, {}))
    assert best[1]["trt_fp16_enable"] == "1"
    assert best[1]["trt_engine_cache_path"] == "engines"
    assert second[1]["use_tf32"] == "0"
    assert all(isinstance(value, str) for _, given in (best, second) for value in given.values())


def test_options_come_from_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_SESSION__GPU__MEMORY_MB", "2048")
    assert load_config().session.gpu == GpuOptions(memory_mb=2048)
    monkeypatch.setenv("FLYWHEEL_SESSION__GPU__MEMORY_MB", "1")
    with pytest.raises(ConfigError, match=r"session\.gpu\.memory_mb"):
        load_config()
    with pytest.raises(ValidationError, match="cuda_graph goes with providers: cuda"):
        SessionConfig(providers="tensorrt", gpu=GpuOptions(cuda_graph=True))


def test_buckets_are_few_and_hold_the_batch() -> None:
    shapes = {bucket(rows, length, 128) for rows in range(1, 65) for length in range(1, 129)}
    assert len(shapes) == 11 * 16
    for rows in range(1, 65):
        for length in (1, 8, 9, LONGEST):
            padded_rows, padded_length = bucket(rows, length, LONGEST)
            assert rows <= padded_rows < rows + 8
            assert length <= padded_length <= min(length + 7, LONGEST)
    assert bucket(5, 57, LONGEST) == (8, LONGEST)
