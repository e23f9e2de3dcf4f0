"""Describes what figures were measured on: processor, cores, versions, model."""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from loadtests.limit import cores
from loadtests.peers import PEERS

_PACKAGES = {"rayserve": "ray", "infinity": "infinity-emb"}  # peers whose package has a different name


def describe() -> str:
    return f"{_processor()}, {cores()} cores, shared with the load generator"


def versions(peers: Sequence[str]) -> str:
    ours = [("Flywheel", "flywheel-serve"), ("Ray", "ray"), ("onnxruntime", "onnxruntime")]
    named = [f"{title} {_installed(package)}" for title, package in ours]
    return ", ".join([*named, f"Python {platform.python_version()}", *map(_pinned, peers), time.strftime("%Y-%m-%d")])


def model(bundle: Path) -> str:
    """Task, precision and date of the export: an older export may lack later improvements of the graph."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    return f"{manifest['task']} {manifest['precision']}, exported {manifest['created']}"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _installed(package: str) -> str:
    for name in (package, f"{package}-gpu"):  # onnxruntime has two builds
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of an unknown version"


def _pinned(peer: str) -> str:
    package = _PACKAGES.get(peer, peer)
    pins = (PEERS[peer].folder / "requirements.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}(?:\[.*\])?==(\S+)$", pins, re.M)
    return f"{package} {found[1]}" if found else package
