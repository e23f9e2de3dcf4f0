"""The servers under load, Flywheel and its peers: how to start, ask and end them."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loadtests import peers
from loadtests.drivers import Call, drive
from loadtests.peers import PEERS, Peer, PeerError, ask
from loadtests.texts import ROOT

START_TIMEOUT_S, STOP_TIMEOUT_S = 180, 60
COMMAND = Path(sys.executable).parent / "flywheel"
LABELS_CONNECTIONS, LABELS_TIMEOUT_S = 64, 120


def _body(texts: list[str]) -> bytes:
    return json.dumps({"text": texts[0]} if len(texts) == 1 else {"texts": texts}).encode()


def _labels(answer: Any) -> list[str]:
    return [one["label"] for one in answer["predictions"]]


_HTTP = ("/v2/models/intent/predict", "/v2/health/ready", True, _body, _labels)
FLYWHEEL = Peer("flywheel", "Flywheel, cache off", *_HTTP)
FLYWHEEL_CACHE = Peer("flywheel_cache", "Flywheel, cache on", *_HTTP)
TITLES = {server.name: server.title for server in (FLYWHEEL, FLYWHEEL_CACHE, *PEERS.values())}


def home() -> Path:
    return Path(os.environ.get("FLYWHEEL_HOME", ROOT / "var")).resolve()


def champion_bundle(models: Path | None = None) -> Path:
    """The bundle of the intent champion in the home `models` (None: `home()`). Raises PeerError if there is none."""
    models = models or home()
    release = release_file(models, "intent")
    if not release.is_file():
        raise PeerError(f"There is no intent model in {models} yet. Run: make serve (it trains one), then make bench.")
    check_encoders(models)
    return _champion(models, release)


def check_encoders(models: Path) -> None:
    """Raises PeerError if a champion in the home `models` is a first version, without an encoder."""
    for file in (models / "releases").glob("*.json"):
        if _has_no_encoder(_champion(models, file)):
            raise PeerError(
                f"The {file.stem} model is a first version, without an encoder, and would be trained beside the "
                "benchmark. Wait until flywheel status says that it is trained, or run: flywheel up --train-first."
            )


def _champion(models: Path, release: Path) -> Path:
    content = json.loads(release.read_text(encoding="utf-8"))
    return models / str(content["versions"][content["champion"]])


def _has_no_encoder(bundle: Path) -> bool:
    manifest = bundle / "manifest.json"
    return manifest.is_file() and not json.loads(manifest.read_text(encoding="utf-8")).get("has_encoder", True)


def release_file(models: Path, task: str) -> Path:
    return models / "releases" / f"{task}.json"


@contextmanager
def running(server: Peer, bundle: Path, models: Path | None = None) -> Iterator[tuple[str, int]]:
    """Run the server until the block ends; yields its URL and process id. Raises PeerError when it does not start.

    `bundle` is that of the intent champion in the home `models` (None: `home()`). Flywheel serves the whole home.
    """
    port = free_port()
    if server.name in PEERS:
        started = peers.running(server, bundle, port)
    else:
        started = flywheel(port, {"FLYWHEEL_CACHE__TEXTS": "0"} if server is FLYWHEEL else {}, models)
    with started as process:
        yield f"http://127.0.0.1:{port}", process.pid


@contextmanager
def flywheel(port: int, environment: dict[str, str], models: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run `flywheel up` on a copy of the home `models` (None: `home()`) until the block ends.

    Raises PeerError when it does not become ready.
    """
    with (
        copied(models or home()) as own,
        up(COMMAND, ROOT, port, {**environment, "FLYWHEEL_HOME": str(own)}) as process,
    ):
        yield process


@contextmanager
def copied(models: Path) -> Iterator[Path]:
    """A copy of a home's releases and bundles, deleted after the block.

    So a benchmark's requests are not logged in the user's home, and nothing is learned from them.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for folder in ("releases", "bundles"):
            shutil.copytree(models / folder, Path(scratch) / folder)
        yield Path(scratch)


@contextmanager
def up(command: Path, folder: Path, port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command`, a `flywheel`, as `flywheel up` in `folder`, whose flywheel.yaml it reads, until the block ends.

    The server is ready when the block begins. Raises PeerError when it does not start.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(command), "up", "--port", str(port)],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            until = time.monotonic() + START_TIMEOUT_S
            while not _is_ready(f"http://127.0.0.1:{port}{FLYWHEEL.ready_path}"):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise PeerError(f"Flywheel did not start:\n{log.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_ready(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5):
        return True
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def labels_alone(server: Peer, url: str, texts: Sequence[str], sample: int = 1000) -> dict[str, str]:
    """The labels of `sample` random texts, asked one after another on an idle server."""
    port = int(url.rpartition(":")[2])
    drawn = random.Random(4).sample(list(texts), min(sample, len(texts)))
    return {text: ask(server, port, [text])[0] for text in drawn}


def labels_under_load(server: Peer, url: str, texts: Sequence[str]) -> tuple[dict[str, str], int]:
    """The label of each text, asked once, over 64 connections; and how many requests failed, whose texts are missing.

    By the bundled driver, which sees every answer; not a measurement of speed.
    """
    labels: dict[str, str] = {}
    failed = []

    def note(index: int, status: int, _: float, body: bytes) -> None:
        if status == 200:
            (labels[texts[index]],) = server.labels(json.loads(body))
        else:
            failed.append(index)

    calls = [Call(server.path, server.body([text])) for text in texts]
    drive(url, calls, LABELS_CONNECTIONS, LABELS_TIMEOUT_S, note, once=True)
    return labels, len(failed)


def series_of(url: str, name: str) -> list[tuple[dict[str, str], float]]:
    """The labels and the value of each series of a metric that the server has now."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        lines = response.read().decode()
    found = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", lines, re.M)
    return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in found]


def texts_by_stage(url: str) -> Counter[str]:
    """How many intent texts Flywheel answered so far at each stage: `linear` (early) and `encoder`.

    Empty for a version whose metrics do not have stages.
    """
    counts: Counter[str] = Counter()
    for labels, value in series_of(url, "flywheel_texts_total"):
        if "stage" in labels and labels.get("task") == "intent":
            counts[labels["stage"]] += int(value)
    return counts


def memory_mb(pid: int) -> dict[str, float]:
    """Memory of the process and all its descendants: `pss_mb` counts a shared page once, `rss_mb` in every process."""
    pages = {"rss_mb": 0.0, "pss_mb": 0.0}
    for one in descendants(pid):
        with suppress(OSError):
            content = Path(f"/proc/{one}/smaps_rollup").read_text()
            for key in pages:
                found = re.search(rf"^{key.removesuffix('_mb')}:\s+(\d+)", content, re.M | re.I)
                pages[key] += int(found[1]) / 1024 if found else 0.0
    return pages


def descendants(pid: int) -> list[int]:
    """The process and all its descendants, from /proc."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    tree = [pid]
    for one in tree:
        tree += children.get(one, [])
    return tree
