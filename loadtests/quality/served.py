"""Serves the models of a home and asks them labelled texts over HTTP, many in a request."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from loadtests.peers import PeerError
from loadtests.quality.movielens import post
from loadtests.servers import COMMAND, check_encoders, copied, free_port, release_file, up

AT_ONCE = 64
"""texts in a request; a server takes 128"""
_ATTEMPTS = 10


@contextmanager
def served(models: Path, tasks: Sequence[str], console: Console) -> Iterator[str]:
    """Serve a copy of these tasks of the home `models` until the block ends, one replica each; yields the URL.

    Raises PeerError when a model is missing, or when the server does not start.
    """
    for task in tasks:
        if not release_file(models, task).is_file():
            raise PeerError(f"There is no {task} model in {models} yet. Run: make serve (it trains the default ones).")
    check_encoders(models)
    settings = {"tasks": {task: {"replicas": 1} for task in tasks}, "learning": {"automatic": False}}
    with copied(models) as own, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "flywheel.yaml").write_text(json.dumps(settings), encoding="utf-8")
        port = free_port()
        console.print(f"starting a server on a copy of {models}", markup=False, highlight=False)
        with up(COMMAND, Path(folder), port, {"FLYWHEEL_HOME": str(own)}):
            yield f"http://127.0.0.1:{port}"


def ask(url: str, task: str, texts: Sequence[str], console: Console, **fields: Any) -> list[dict[str, Any]]:
    """The prediction of each text, asked AT_ONCE in a request with these `fields`. Exits if requests keep failing."""
    predictions: list[dict[str, Any]] = []
    versions = set()
    parts = [texts[first : first + AT_ONCE] for first in range(0, len(texts), AT_ONCE)]
    for part in track(parts, f"asking {task}", console=Console(stderr=True)):
        answer = _answer(url, task, {"texts": list(part), **fields})
        if len(answer["predictions"]) != len(part):
            raise SystemExit(f"{url} gave {len(answer['predictions'])} predictions for {len(part)} texts")
        versions.add(str(answer["model_version"]))
        predictions += answer["predictions"]
    console.print(f"{len(predictions):,} texts were answered by {task} {', '.join(sorted(versions))}", highlight=False)
    return predictions


def _answer(url: str, task: str, body: dict[str, Any]) -> Any:
    for attempt in range(_ATTEMPTS):
        status, answer = post(url, task, body)
        if status == 200:
            return answer
        if status not in (429, 503):
            break
        time.sleep(1 + attempt)
    raise SystemExit(f"{url} answered {status}: {answer}")
