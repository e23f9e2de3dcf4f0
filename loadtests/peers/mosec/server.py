"""mosec as its documentation does it: a server in Rust in front of Python processes.

Follows README's "Usage" and "Configuration" (dynamic batching by `max_batch_size` and a `max_wait_time` below the
inference time of a batch), and "Performance tuning" (`num` workers, threads set by `env`). JSON is its default.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from model import Model
from mosec import Server, Worker

BATCH, WAIT_MS, WORKERS = 32, 1, 2


class Classifier(Worker):
    def __init__(self) -> None:
        self.model = Model(Path(os.environ["BUNDLE"]))

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers of a batch of requests. A request may have many texts, so texts are run BATCH at a time."""
        requests = [one["texts"] if "texts" in one else [one["text"]] for one in data]
        texts = [text for request in requests for text in request]
        found = iter([p for at in range(0, len(texts), BATCH) for p in self.model.predict(texts[at : at + BATCH])])
        return [{"predictions": [next(found) for _ in request]} for request in requests]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", required=True)
    arguments = parser.parse_args()
    os.environ["BUNDLE"] = arguments.bundle  # the workers are spawned: they inherit it
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", arguments.port, "--log-level", "warning"]  # mosec reads these
    server = Server()
    threads = [{"OMP_NUM_THREADS": "1"}] * WORKERS
    server.append_worker(
        Classifier, num=WORKERS, max_batch_size=BATCH, max_wait_time=WAIT_MS, env=threads, route="/predict"
    )
    server.run()
