"""A session with a small untrained model: the path a GPU takes, run on the CPU where there is no GPU, and fp16."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from export import session as session_module
from export.bundle import Bundle, write_bundle
from export.errors import BundleError, ProviderError
from export.gpu import BoundRun
from export.providers import CPU, CUDA, TENSORRT, GpuOptions
from export.session import OnnxSession
from export.tokenizer import pad
from tests.helpers.small_model import small_classifier

LONGEST = 60  # not a multiple of 8, and the model has not one position more


SHAPES = ((1, 1), (1, 8), (3, 5), (8, 16), (9, 17), (13, LONGEST), (33, 2))


Rows = list[list[int]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """A small untrained classifier, exported as trained ones are: fp32 and fp16."""
    from export.graph.fused import with_fused_operators
    from export.graph.optimize import to_fp16
    from export.graph.trace import trace

    folder = tmp_path_factory.mktemp("bundles")
    model, tokenizer = small_classifier(LONGEST)
    trace(with_fused_operators(model, tanh_gelu=False), folder / "fp32.onnx")
    to_fp16(folder / "fp32.onnx", folder / "fp16.onnx")
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    fields = {"task": "intent", "kind": "classifier", "labels": ("a", "b", "c", "d", "e"), "max_length": LONGEST}
    fields |= {"base_model": "none", "data": {}, "created": "today"}
    return {
        precision: write_bundle(
            folder / precision,
            model=folder / f"{precision}.onnx",
            tokenizer=folder / "tokenizer.json",
            fields=fields | {"precision": precision},
            assets={},
        )
        for precision in ("fp32", "fp16")
    }


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    session_module._warn_of_precision.cache_clear()
    with caplog.at_level(logging.WARNING, "flywheel.session"):
        yield caplog


def has(*providers: str) -> Any:
    return lambda: list(providers)


def some_rows(batch: int, length: int) -> Rows:
    """Rows of mixed lengths, the first of them `length`."""
    rng = np.random.default_rng(batch * 1000 + length)
    return [rng.integers(1000, 20000, length if i == 0 else rng.integers(1, length + 1)).tolist() for i in range(batch)]


def bound(session: OnnxSession) -> BoundRun:
    """The path a GPU takes, on the CPU."""
    return BoundRun(session._session, LONGEST, device="cpu")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_bound_buffers_and_buckets_change_no_answer(bundles: dict[str, Bundle], precision: str) -> None:
    session = OnnxSession(bundles[precision], providers="cpu")
    run = bound(session)
    kept: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for batch, length in SHAPES * 2:  # the second round finds the first one's texts in its buffers
        rows = some_rows(batch, length)
        output, expected = run(*pad(rows)), session.run(rows)
        assert output.shape == expected.shape
        kept.append((output, expected))
    for output, expected in kept:  # compared at the end, so that an output that a later run overwrites is seen
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-6)


def test_the_bound_path_gives_what_a_plain_run_gives_to_the_bit(bundles: dict[str, Bundle]) -> None:
    session = OnnxSession(bundles["fp32"], providers="cpu")
    for shape in ((1, 8), (8, 16), (16, LONGEST)):  # nothing to pad
        rows = some_rows(*shape)
        np.testing.assert_array_equal(bound(session)(*pad(rows)), session.run(rows))


def test_threads_share_the_buffers(bundles: dict[str, Bundle]) -> None:
    session = OnnxSession(bundles["fp32"], providers="cpu")
    run = bound(session)
    batches = [some_rows(1 + i % 4, 8) for i in range(64)]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda rows: run(*pad(rows)), batches))
    for rows, output in zip(batches, outputs, strict=True):
        np.testing.assert_allclose(output, session.run(rows), rtol=0, atol=1e-6)


def test_fp16_keeps_fused_attention_and_the_answer(bundles: dict[str, Bundle]) -> None:
    graph = onnx.load(str(bundles["fp16"].model_path)).graph
    attention = [node for node in graph.node if node.op_type == "MultiHeadAttention"]
    assert [node.domain for node in attention] == ["com.microsoft"] * 2
    casts = {node.output[0]: node.attribute[0].i for node in graph.node if node.op_type == "Cast"}
    assert {casts[node.input[4]] for node in attention} == {onnx.TensorProto.INT32}
    weights = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 2 and min(tensor.dims) > 4}
    assert onnx.TensorProto.FLOAT16 in weights
    assert onnx.TensorProto.FLOAT not in weights
    half, whole = (OnnxSession(bundles[precision], providers="cpu") for precision in ("fp16", "fp32"))
    for batch, length in SHAPES:
        rows = some_rows(batch, length)
        np.testing.assert_allclose(half.run(rows), whole.run(rows), rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("precision", "provider", "sentence"),
    [
        ("int8", CUDA, "An int8 bundle on a GPU: .* --precision fp16"),
        ("int8", TENSORRT, "An int8 bundle on a GPU: .* --precision fp16"),
        ("fp16", CPU, "An fp16 bundle on a CPU .* --precision int8"),
        ("fp16", CUDA, None),
        ("int8", CPU, None),
        ("fp32", CPU, None),
    ],
)
def test_a_precision_that_does_not_suit_the_machine_is_said_once(
    precision: str,
    provider: str,
    sentence: str | None,
    bundles: dict[str, Bundle],
    monkeypatch: pytest.MonkeyPatch,
    warned: pytest.LogCaptureFixture,
) -> None:
    bundle = bundles["fp32"]
    manifest = bundle.manifest.model_copy(update={"precision": precision})
    ran: list[tuple[int, int]] = []

    def run(self: OnnxSession, rows: Rows) -> NDArray[np.float32]:
        ran.append((len(rows), len(rows[0])))
        return np.zeros((len(rows), len(manifest.labels)), np.float32)

    monkeypatch.setattr(OnnxSession, "run", run)
    for _ in range(2):  # two versions of a task in one replica
        session = OnnxSession(Bundle(bundle.path, manifest), providers="cpu")
        session.provider = provider
        session.warm_up()
    assert session.batch_tokens == (256 if provider == CPU else 8192)
    assert max(length for _, length in ran) == LONGEST
    assert (max(batch * length for batch, length in ran) > 8000) == (provider != CPU)
    if sentence is None:
        assert not warned.records
    else:
        [record] = warned.records
        assert warned.text.count("bundle on a") == 1
        assert re.search(sentence, record.getMessage())


@pytest.mark.parametrize("change", [{"labels": ("a", "b")}, {"output": "input_ids"}], ids=["labels", "rows"])
def test_a_model_whose_outputs_are_not_what_the_manifest_says_is_refused_before_it_serves(
    bundles: dict[str, Bundle], change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles["fp32"]
    session = OnnxSession(bundle, providers="cpu")
    if "labels" in change:
        session.bundle = Bundle(bundle.path, bundle.manifest.model_copy(update=change))
    else:
        whole = OnnxSession.run
        monkeypatch.setattr(OnnxSession, "run", lambda self, rows: whole(self, rows)[1:])
    with pytest.raises(BundleError, match="texts give"):
        session.warm_up()


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no GPU on this machine")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("options", [{}, {"memory_mb": 1024}, {"tf32": False}, {"cuda_graph": True}], ids=str)
def test_a_gpu_answers_as_the_cpu(bundles: dict[str, Bundle], precision: str, options: dict[str, Any]) -> None:
    on_cpu = OnnxSession(bundles[precision], providers="cpu")
    on_gpu = OnnxSession(bundles[precision], providers="cuda", gpu=GpuOptions(**options))
    assert on_gpu.provider == CUDA
    on_gpu.warm_up()
    for batch, length in SHAPES * 2:
        rows = some_rows(batch, length)
        np.testing.assert_allclose(on_gpu.run(rows), on_cpu.run(rows), rtol=0, atol=5e-3)


def test_a_gpu_build_without_a_gpu_runs_on_the_cpu_and_says_so(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch, warned: pytest.LogCaptureFixture
) -> None:
    """onnxruntime lists CUDA wherever it was built with it, and passes over it in silence where it does not start."""
    if CUDA in ort.get_available_providers():
        pytest.skip("this machine has the GPU build")
    monkeypatch.setattr(ort, "get_available_providers", has(CUDA, CPU))
    session = OnnxSession(bundles["fp32"])
    assert session.provider == CPU
    assert session.run([[101, 102]]).shape == (1, 5)
    assert "Running on the CPU: CUDAExecutionProvider does not start" in warned.text
    with pytest.raises(ProviderError, match=r"providers: cuda was asked for, but CUDAExecutionProvider does not start"):
        OnnxSession(bundles["fp32"], providers="cuda")
