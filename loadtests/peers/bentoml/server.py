"""BentoML as its documentation does it.

Follows "Adaptive batching" (a batchable API over a list of texts, `max_batch_size`, `max_latency_ms`), "Workers" (one
process a core) and "Configurations". Access logs and metrics are off; uvicorn finds uvloop and httptools.
"""

# No postponed annotations here: BentoML takes the request's and the answer's types from the function.

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import bentoml
from model import Model


@bentoml.service(
    name="intent",
    workers=2,
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Intent:
    def __init__(self) -> None:
        self.model = Model(Path(os.environ["BUNDLE"]))

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        return self.model.predict(texts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", required=True)
    arguments = parser.parse_args()
    os.environ |= {"BUNDLE": arguments.bundle, "OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True"}
    os.environ["BENTOML_HOME"] = os.environ.get("TMPDIR", "/tmp")
    command = ["-m", "bentoml", "serve", "server:Intent", "--working-dir", str(Path(__file__).parent)]
    os.execv(sys.executable, [sys.executable, *command, "--host", "127.0.0.1", "--port", arguments.port, "--quiet"])
