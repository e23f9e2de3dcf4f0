"""MLServer as its documentation does it.

Follows "Custom Inference Runtimes" (a subclass of MLModel), "Adaptive Batching" (`max_batch_size`,
`max_batch_time`) and "Parallel Inference" (`parallel_workers`, one a core). The settings are those one writes into
`settings.json` and `model-settings.json`; `mlserver start` does just this with them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop
from model import Model


class IntentRuntime(MLModel):
    async def load(self) -> bool:
        self.model = Model(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        predictions = self.model.predict(StringCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                StringCodec.encode_output("label", [one["label"] for one in predictions]),
                NumpyCodec.encode_output("score", np.array([[one["score"]] for one in predictions])),
            ],
        )


async def serve(bundle: str, port: int, folder: str) -> None:
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=port,
        grpc_port=0,  # any free one: it cannot be switched off
        metrics_endpoint=None,
        metrics_dir=folder,
        parallel_workers=2,
        gzip_enabled=False,
    )
    model = ModelSettings(
        name="intent",
        implementation="server.IntentRuntime",
        parameters=ModelParameters(uri=bundle),
        max_batch_size=32,
        max_batch_time=0.001,
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    install_uvloop_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(serve(arguments.bundle, arguments.port, folder))
