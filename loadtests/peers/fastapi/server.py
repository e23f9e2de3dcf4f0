"""FastAPI and onnxruntime by hand, as a good engineer writes it in an afternoon.

Follows FastAPI's "Server Workers" (one uvicorn process a core, uvloop and httptools) and "Concurrency and async /
await". The model is called within the coroutine: a thread pool costs more than the two milliseconds it would free.
One text is one run of the session; there is no batching.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from model import Model
from pydantic import BaseModel

WORKERS = 2


class Request(BaseModel):
    text: str | None = None
    texts: list[str] | None = None


def create_app() -> FastAPI:
    app = FastAPI()
    model = Model(Path(os.environ["BUNDLE"]))

    @app.post("/predict")
    async def predict(request: Request) -> Any:
        texts = [request.text] if request.text is not None else request.texts
        if not texts:
            raise HTTPException(422, "text or texts is needed")
        return JSONResponse({"predictions": model.predict(texts)})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    os.environ |= {"BUNDLE": arguments.bundle, "OMP_NUM_THREADS": "1"}  # uvicorn's workers are spawned: they inherit it
    uvicorn.run(
        "server:create_app",
        factory=True,
        host="127.0.0.1",
        port=arguments.port,
        workers=WORKERS,
        access_log=False,
        log_level="warning",
    )
