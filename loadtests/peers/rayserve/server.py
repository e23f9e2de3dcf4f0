"""Ray Serve as its own documentation does it.

Follows "Set Up FastAPI and HTTP" (an ingress deployment), "Deploy Compositions of Models" (it calls the model's
deployment through a handle) and "Dynamic Request Batching" (`@serve.batch`). Two replicas of the model, one a core;
Ray's default proxy, which is written in Python. Access logs are off, and `max_ongoing_requests` is
raised so that batches can fill.
"""

# No postponed annotations here: an ingress is pickled, and FastAPI then finds no type for a name in a string.

import argparse
import signal
import threading
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from model import Model
from pydantic import BaseModel
from ray import serve
from ray.serve.handle import DeploymentHandle

app = FastAPI()


class Request(BaseModel):
    text: str


@serve.deployment(num_replicas=2, max_ongoing_requests=100, ray_actor_options={"num_cpus": 1})
class Classifier:
    def __init__(self, bundle: str) -> None:
        self.model = Model(Path(bundle))

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.001)
    async def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        return self.model.predict(texts)


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
@serve.rayserve.bypass(app)
class Ingress:
    def __init__(self, classifier: DeploymentHandle) -> None:
        self.classifier = classifier

    @app.post("/predict")
    async def predict(self, request: Request) -> dict[str, Any]:
        return await self.classifier.remote(request.text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    ended = threading.Event()
    # "local": a cluster of its own, even where another one runs.
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    for number in (signal.SIGINT, signal.SIGTERM):  # after ray.init, which sets its own
        signal.signal(number, lambda *_: ended.set())
    serve.start(http_options={"host": "127.0.0.1", "port": arguments.port}, logging_config={"enable_access_log": False})
    serve.run(Ingress.bind(Classifier.bind(arguments.bundle)), name="intent", route_prefix="/")
    ended.wait()
    ray.shutdown()  # the cluster is ours alone: it takes the application with it
