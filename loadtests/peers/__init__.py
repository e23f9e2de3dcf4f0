"""The benchmark's peers: other ways to serve the same exported intent bundle over HTTP.

A peer is a folder here with a `server.py` and a `requirements.txt`, and an entry in PEERS. It runs in a virtual
environment of its own under `.venv-peers`, so this module needs none of the peers' packages.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ENVIRONMENTS = FOLDER.parent.parent / ".venv-peers"
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 10
EXAMPLE = "where is my order?"


class PeerError(Exception):
    """Raised when a peer's packages cannot be installed, or when it does not start."""


@dataclass(frozen=True)
class Peer:
    name: str
    title: str  # its name in tables
    path: str  # of its predict endpoint
    ready_path: str  # of its health endpoint
    many: bool  # whether one request takes several texts
    body: Callable[[list[str]], bytes]  # texts -> the request's body
    labels: Callable[[Any], list[str]]  # the parsed answer -> one label a text, in order

    @property
    def folder(self) -> Path:
        return FOLDER / self.name


def _dumps(content: Any) -> bytes:
    return json.dumps(content).encode()


def _one(texts: list[str]) -> bytes:
    (text,) = texts
    return _dumps({"text": text})


def _one_or_many(texts: list[str]) -> bytes:
    return _one(texts) if len(texts) == 1 else _dumps({"texts": texts})


def _many(texts: list[str]) -> bytes:
    return _dumps({"texts": texts})


def _tensor(texts: list[str]) -> bytes:
    tensor = {"name": "text", "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}
    return _dumps({"inputs": [{**tensor, "parameters": {"content_type": "str"}}]})


def _input(texts: list[str]) -> bytes:
    return _dumps({"model": "intent", "input": texts})


_PEERS = (
    Peer(
        "fastapi", "FastAPI + onnxruntime, 2 workers", "/predict", "/health", True,
        _one_or_many, lambda answer: [one["label"] for one in answer["predictions"]],
    ),
    Peer(
        "rayserve", "Ray Serve, @serve.batch, Python proxy", "/predict", "/-/healthz", False,
        _one, lambda answer: [answer["label"]],
    ),
    Peer(
        "litserve", "LitServe, batch 32, 2 workers", "/predict", "/health", False,
        _one, lambda answer: [answer["label"]],
    ),
    Peer(
        "mlserver", "MLServer, adaptive batching", "/v2/models/intent/infer", "/v2/health/ready", True,
        _tensor, lambda answer: next(list(one["data"]) for one in answer["outputs"] if one["name"] == "label"),
    ),
    Peer(
        "infinity", "infinity, optimum engine", "/classify", "/health", True,
        _input, lambda answer: [max(one, key=lambda each: each["score"])["label"] for one in answer["data"]],
    ),
    Peer(
        "mosec", "mosec, batch 32, 2 workers", "/predict", "/", True,
        _one_or_many, lambda answer: [one["label"] for one in answer["predictions"]],
    ),
    Peer(
        "bentoml", "BentoML, adaptive batching, 2 workers", "/predict", "/readyz", True,
        _many, lambda answer: [one["label"] for one in answer],
    ),
)  # fmt: skip
PEERS: dict[str, Peer] = {peer.name: peer for peer in _PEERS}


def prepare(peer: Peer) -> Path:
    """The peer's virtual environment, created if it is missing or older than its requirements. Raises PeerError."""
    environment, requirements = ENVIRONMENTS / peer.name, peer.folder / "requirements.txt"
    stamp = environment / "installed"
    if stamp.is_file() and stamp.stat().st_mtime >= requirements.stat().st_mtime:
        return environment
    print(f"installing {peer.name}: {', '.join(requirements.read_text().split())}", flush=True)
    pip = [str(_python(environment)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(environment)], [*pip, "-r", str(requirements)]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            last = "\n".join(done.stdout.splitlines()[-10:])
            raise PeerError(f"{peer.name} could not be installed ({' '.join(command)}):\n{last}")
    stamp.touch()
    return environment


@contextmanager
def running(peer: Peer, bundle: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the peer on 127.0.0.1:`port` until the block ends. Raises PeerError when it does not start."""
    script, python = peer.folder / "server.py", _python(prepare(peer))
    command = [str(python), str(script), "--bundle", str(bundle.resolve()), "--port", str(port)]
    # Without Ray's variables: those that Flywheel sets would change the peer, or have it join Flywheel's cluster.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(FOLDER), "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    with (
        tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as log,
    ):
        environment["TMPDIR"] = folder  # files that the peer leaves behind are deleted with the folder
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            if problem := _wait_for_answer(peer, process, port):
                log.seek(0)
                last = "\n".join(log.read().decode(errors="replace").splitlines()[-20:])
                raise PeerError(f"{peer.name} {problem}:\n{last}")
            yield process
        finally:
            _end(process)


def ask(peer: Peer, port: int, texts: list[str]) -> list[str]:
    """The peer's labels of `texts`, in order. Raises OSError when it cannot be reached or refuses."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{peer.path}", peer.body(texts), headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return peer.labels(json.load(response))


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _wait_for_answer(peer: Peer, process: subprocess.Popen[bytes], port: int) -> str | None:
    """Wait until the peer predicts. Returns None, or a sentence if it does not within START_TIMEOUT_S."""
    until, last = time.monotonic() + START_TIMEOUT_S, ""
    while time.monotonic() < until:
        if process.poll() is not None:
            return f"ended with exit code {process.returncode} before it answered"
        try:
            ask(peer, port, [EXAMPLE])
            return None
        except (OSError, HTTPException) as error:
            last = str(error)
        time.sleep(0.25)
    return f"did not answer within {START_TIMEOUT_S} s ({last})"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate the leader of the session, then kill the processes that it left behind."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in _session(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _session(leader: int) -> list[int]:
    """Processes left in the leader's session. Ray's workers have their own groups, which `killpg` does not reach."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getsid(pid := int(entry.name)) == leader and pid != leader:
                found.append(pid)
    return found
