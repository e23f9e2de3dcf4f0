"""A model as this machine's CPU runs it, in a file that all replicas map: one copy of the weights in memory and cache.

onnxruntime lays weights out for the CPU when it loads a model, in memory of that process' own. Two replicas that take
turns then read two copies, which together no longer fit the cache they share. So the graph is optimized and laid out
once, beside the bundles, and mapped from there (docs/decisions/0017-shared-weights.md):

    bundles/<task>/.packed/<version>/<machine and model>/   model.onnx, weights.bin, and the sha256 of both

It is made from the bundle whenever it is missing, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from export.bundle import MODEL, Bundle, sha256_of
from export.files import exclusive_lock
from export.providers import CPU, SLOW_ON_CPU

log = logging.getLogger("flywheel.session")

_FOLDER, _MAKING = ".packed", ".making-"
_WEIGHTS, _SUMS = "weights.bin", "sha256.json"
_SHARED_FROM_BYTES = "1024"  # smaller constants stay in the graph
_LONGEST_S = 300


def packed_model(bundle: Bundle) -> Path | None:
    """The ONNX file to open in place of `bundle.model_path`, made now if need be; None when it cannot be made.

    Another process makes it, so that this one keeps none of the memory that takes.
    """
    place = packed_folder(bundle.path) / _machine_and(bundle)
    if not _is_whole(place):
        command = [sys.executable, "-m", __name__, str(bundle.path), str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S)
            reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1] if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        if reason or not _is_whole(place):
            log.warning("%s: its weights are not shared between replicas: %s", bundle.path, reason or "damaged again")
            return None
    return place / MODEL


def packed_folder(bundle: Path) -> Path:
    """What has been made of the bundle at this path, for whatever machine; delete it with the bundle."""
    return bundle.parent / _FOLDER / bundle.name


def _machine_and(bundle: Bundle) -> str:
    """A name for what the file depends on: the model, onnxruntime, and the CPU that the weights are laid out for."""
    import onnxruntime as ort

    parts = [bundle.manifest.files[MODEL], ort.__version__, platform.machine(), _cpu()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """The kind of CPU and what it can do, as Linux says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _is_whole(place: Path) -> bool:
    """A file that is damaged answers wrongly, and one cut short ends the process that maps it."""
    try:
        sums = json.loads((place / _SUMS).read_bytes())
        return all(sha256_of(place / name) == sums[name] for name in (MODEL, _WEIGHTS))
    except (OSError, ValueError, KeyError):
        return False


def _make(bundle: Path, place: Path) -> None:
    """Write `place` so that it is either whole or not there. Others that want it meanwhile wait."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(place.parent / ".lock"):
        if _is_whole(place):
            return
        for left in place.parent.glob(f"{_MAKING}*"):  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=_MAKING) as scratch:
            made = Path(scratch) / place.name
            made.mkdir()
            _pack(bundle / MODEL, made)
            sums = {name: sha256_of(made / name) for name in (MODEL, _WEIGHTS)}
            (made / _SUMS).write_text(json.dumps(sums))
            shutil.rmtree(place, ignore_errors=True)
            os.rename(made, place)


def _pack(model: Path, folder: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(folder / MODEL)
    for name, value in {
        "optimized_model_external_initializers_file_name": _WEIGHTS,
        "optimized_model_external_initializers_min_size_in_bytes": _SHARED_FROM_BYTES,
        "save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(f"session.{name}", value)
    ort.InferenceSession(str(model), options, providers=[CPU], disabled_optimizers=SLOW_ON_CPU)


if __name__ == "__main__":
    try:
        _make(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:
        sys.exit(" ".join(str(error).split()))
