"""Where the sockets, logs and other short-lived files of a run lie: a directory that Ray and HAProxy can work with."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from serve.rayserve.start_error import StartError

# The path of a socket has at most 107 bytes, of which Ray's names for its session take 68.
MAX_BYTES = 39
# HAProxy allows 97, of which the names of a run's directory, Serve's of a node in it, and metrics.sock take 82.
MAX_BYTES_OF_HAPROXY = 15
_SAFE = re.compile(r"/[\w/.+=,-]*", re.ASCII)  # Serve writes paths into HAProxy's configuration without quotes


class Scratch(NamedTuple):
    """The directory for a run's files, and a sentence if it is another than the environment asks for."""

    folder: Path
    warning: str = ""


def choose(home: Path, max_bytes: int = MAX_BYTES) -> Scratch:
    """A directory whose path has at most `max_bytes`, for Ray's sessions or, with MAX_BYTES_OF_HAPROXY, for HAProxy.

    $RAY_TMPDIR, else $TMPDIR, else /tmp; where that cannot be used: /tmp, $XDG_RUNTIME_DIR, /dev/shm, or `home`/tmp.

    Raises StartError when none can be used.
    """
    wanted = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    reasons: list[str] = []
    for path in _candidates(wanted, home):
        for folder in (path, path / f"flywheel-{os.getuid()}"):
            if not (reason := _unusable(folder, max_bytes)):
                warning = f"{reasons[0]}; sockets and logs go to {folder}/ray" if wanted and reasons else ""
                return Scratch(folder, warning)
            reasons.append(f"{wanted + '=' if wanted and path == Path(os.environ[wanted]) else ''}{folder}: {reason}")
    raise StartError(f"No directory for sockets and logs: {'; '.join(reasons)}. Set TMPDIR to another.")


def _candidates(wanted: str, home: Path) -> Iterator[Path]:
    if wanted:
        yield Path(os.environ[wanted]).absolute()
    yield Path("/tmp")
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime)
    yield from (Path("/dev/shm"), home.absolute() / "tmp")


def _unusable(folder: Path, max_bytes: int) -> str:
    """Why Ray cannot use `folder`, creating it if it is missing; empty if it can."""
    if len(os.fsencode(folder)) > max_bytes:
        return f"longer than {max_bytes} bytes, which leaves no room for the names of sockets"
    if not _SAFE.fullmatch(str(folder)):
        return "characters that HAProxy's configuration does not take"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.name == f"flywheel-{os.getuid()}" and folder.lstat().st_uid != os.getuid():
            return "belongs to another user"
        rays = folder / "ray"  # Ray creates it, writable for everybody; another program may have made it otherwise
        if rays.exists() and not os.access(rays, os.W_OK | os.X_OK):
            return f"{rays} cannot be written"
        with tempfile.NamedTemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return str(error.strerror).lower()
