"""LitServe as its documentation does it.

Follows "Batching" (`max_batch_size`, `batch_timeout`), "LitServer" (on a CPU, as many workers as cores) and the advice
there to use `fast_queue` above 100 requests a second. One HTTP process and a wait of 1 ms were the fastest on 2 cores.
"""

# No postponed annotations here: LitServe takes the request's type from decode_request, and reads a string as a
# query parameter.

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import litserve as ls
from model import Model


class IntentAPI(ls.LitAPI):
    def __init__(self, bundle: str, **options: Any) -> None:
        super().__init__(**options)
        self.bundle = bundle

    def setup(self, device: str) -> None:
        self.model = Model(Path(self.bundle))

    def decode_request(self, request: dict[str, Any]) -> str:
        return str(request["text"])

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        return self.model.predict(texts)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # LitServe ends its workers on an interrupt alone
    os.environ["OMP_NUM_THREADS"] = "1"
    api = IntentAPI(arguments.bundle, max_batch_size=32, batch_timeout=0.001)
    server = ls.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=2,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
