"""Weights that replicas share: the same answers as the bundle's own, made once, again when damaged, or done without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.bundle import MODEL, Bundle
from export.packed import packed_folder, packed_model
from export.session import OnnxSession

SHAPES = ((1, 2), (1, 17), (7, 9), (16, 16))


@pytest.fixture
def bundle(bundle_of: Callable[[str], Path], tmp_path: Path) -> Bundle:
    """The intent model as it is served, int8, in a folder of the test's own."""
    return Bundle.open(shutil.copytree(bundle_of("intent"), tmp_path / "intent" / "1"))


def outputs(session: OnnxSession) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [session.run(random.integers(5, 2_000, shape).tolist()) for shape in SHAPES]


def left_behind(bundle: Bundle) -> list[str]:
    """What lies beside the one folder that was made."""
    return sorted(file.name for file in packed_folder(bundle.path).iterdir() if not file.name.isalnum())


@pytest.mark.parametrize("task", ["intent", "sentiment", "recommendation"])
def test_shared_weights_answer_as_the_bundle_to_the_bit(
    task: str, bundle_of: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = Bundle.open(shutil.copytree(bundle_of(task), tmp_path / task / "1"))
    shared, own = OnnxSession(bundle, providers="cpu", shared=True), OnnxSession(bundle, providers="cpu")
    assert packed_model(bundle) is not None
    for ours, expected in zip(outputs(shared), outputs(own), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_two_processes_map_one_file_and_make_it_once(bundle: Bundle) -> None:
    script = (
        "import sys; from export.bundle import Bundle; from export.session import OnnxSession; "
        "s = OnnxSession(Bundle.open(sys.argv[1]), providers='cpu', shared=True); s.run([[5] * 16] * 8); "
        "print([line.split()[4] for line in open('/proc/self/maps') if line.rstrip().endswith('weights.bin')][0])"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(bundle.path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    inodes = {process.communicate(timeout=120)[0].strip() for process in both}
    (made,) = [folder for folder in packed_folder(bundle.path).iterdir() if folder.is_dir()]
    assert inodes == {str((made / "weights.bin").stat().st_ino)}
    assert left_behind(bundle) == [".lock"]


@pytest.mark.parametrize("name", [MODEL, "weights.bin", "sha256.json"])
def test_a_damaged_file_is_made_again(bundle: Bundle, name: str) -> None:
    first = packed_model(bundle)
    assert first is not None
    whole = (first.parent / name).read_bytes()
    (first.parent.parent / ".making-killed").mkdir()  # whoever was killed at it leaves this
    os.truncate(first.parent / name, len(whole) // 2)
    assert packed_model(bundle) == first
    assert (first.parent / name).read_bytes() == whole
    assert left_behind(bundle) == [".lock"]


def test_another_model_under_the_same_name_has_a_file_of_its_own(
    bundle: Bundle, bundle_of: Callable[[str], Path]
) -> None:
    first = packed_model(bundle)
    shutil.rmtree(bundle.path)
    other = Bundle.open(shutil.copytree(bundle_of("sentiment"), bundle.path))
    assert packed_model(other) != first


def test_where_none_can_be_written_a_replica_has_weights_of_its_own(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    packed_folder(bundle.path).parent.write_text("no folder can be made here")
    session = OnnxSession(bundle, providers="cpu", shared=True)
    assert "not shared between replicas" in caplog.text
    for ours, expected in zip(outputs(session), outputs(OnnxSession(bundle, providers="cpu")), strict=True):
        np.testing.assert_array_equal(ours, expected)
