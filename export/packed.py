"""Packed models: optimized for this machine's CPU, in a file that all replicas map, so that they share the weights.

onnxruntime prepacks weights for the CPU when it loads a model, in private memory of the process. Two replicas then read
two copies, which together do not fit the CPU cache that they share. So the graph is optimized and prepacked once,
beside the bundles, and mapped from there (docs/decisions/0017-shared-weights.md):

    bundles/<task>/.packed/<version>/<machine and model>/   model.onnx, weights.bin, and the sha256 of both

It is created from the bundle whenever it is missing, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from export.bundle import MODEL, Bundle, sha256_of
from export.files import exclusive_lock
from export.providers import CPU, SLOW_ON_CPU

log = logging.getLogger("flywheel.session")

_FOLDER, _PARTIAL = ".packed", ".making-"
_WEIGHTS, _SUMS = "weights.bin", "sha256.json"
_SHARED_FROM_BYTES = "1024"  # smaller constants stay in the graph
_TIMEOUT_S = 300
_ALIGNMENT = 64  # bytes, of a cache line and of an AVX-512 register
_PREPACKED = re.compile(rb"\|([0-9]+);[0-9]+;[0-9]+")  # "offset;length;padding" in a tensor's external data


def packed_model(bundle: Bundle) -> Path | None:
    """The ONNX file to open instead of `bundle.model_path`, created if it is missing; None if that fails.

    A subprocess creates it, so that this process does not keep the memory that it takes.
    """
    target = packed_folder(bundle.path) / _cache_key(bundle)
    if not _is_valid(target):
        command = [sys.executable, "-m", __name__, str(bundle.path), str(target)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
            reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1] if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        if reason or not _is_valid(target):
            log.warning("%s: its weights are not shared between replicas: %s", bundle.path, reason or "damaged again")
            return None
    return target / MODEL


def packed_folder(bundle: Path) -> Path:
    """The folder with all packed models of the bundle at this path; to be deleted with the bundle."""
    return bundle.parent / _FOLDER / bundle.name


def _cache_key(bundle: Bundle) -> str:
    """A hash of what the file depends on: the model, onnxruntime, and the CPU for which the weights are prepacked."""
    import onnxruntime as ort

    parts = [bundle.manifest.files[MODEL], ort.__version__, platform.machine(), _cpu()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """The CPU model and its features, from /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _is_valid(target: Path) -> bool:
    """Verify checksums: a damaged file gives wrong answers, and a truncated one kills the process that maps it."""
    try:
        sums = json.loads((target / _SUMS).read_bytes())
        whole = all(sha256_of(target / name) == sums[name] for name in (MODEL, _WEIGHTS))
        return whole and _is_aligned(target / MODEL)
    except (OSError, ValueError, KeyError):
        return False


def _write_packed(bundle: Path, target: Path) -> None:
    """Write `target` atomically. Other processes that need it wait for the lock."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(target.parent / ".lock"):
        if _is_valid(target):
            return
        for leftover in target.parent.glob(f"{_PARTIAL}*"):  # of a killed process
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=_PARTIAL) as scratch:
            made = Path(scratch) / target.name
            made.mkdir()
            _pack(bundle / MODEL, made)
            sums = {name: sha256_of(made / name) for name in (MODEL, _WEIGHTS)}
            (made / _SUMS).write_text(json.dumps(sums))
            shutil.rmtree(target, ignore_errors=True)
            os.rename(made, target)


def _pack(model: Path, folder: Path) -> None:
    """Write the packed model to `folder`, where the layout allows it with prepacked weights.

    onnxruntime writes weights one after the other, and its kernels read prepacked ones with instructions that end the
    process at an address that is no multiple of 64. Where a tensor before them has another size, as in an encoder of
    140 positions or 312 channels, each process prepacks for itself.
    """
    _optimize(model, folder, prepacked=True)
    if not _is_aligned(folder / MODEL):
        _optimize(model, folder, prepacked=False)


def _is_aligned(model: Path) -> bool:
    """Whether all prepacked weights of a packed model begin at a multiple of 64 in its file of weights."""
    return all(int(offset) % _ALIGNMENT == 0 for offset in _PREPACKED.findall(model.read_bytes()))


def _optimize(model: Path, folder: Path, *, prepacked: bool) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(folder / MODEL)
    for name, value in {
        "optimized_model_external_initializers_file_name": _WEIGHTS,
        "optimized_model_external_initializers_min_size_in_bytes": _SHARED_FROM_BYTES,
        "save_external_prepacked_constant_initializers": str(int(prepacked)),
    }.items():
        options.add_session_config_entry(f"session.{name}", value)
    ort.InferenceSession(str(model), options, providers=[CPU], disabled_optimizers=SLOW_ON_CPU)


if __name__ == "__main__":
    try:
        _write_packed(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:
        sys.exit(" ".join(str(error).split()))
