"""Asks a server through the kserve SDK's own REST client and prints what came back as JSON.

Run by tests/server/test_oip_clients.py in a virtual environment of its own: kserve brings much that Flywheel does not
use.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

TEXTS = ["where is my order 88231?", "will it rain tomorrow"]


def request(binary: bool) -> InferRequest:
    texts = InferInput("text", [len(TEXTS)], "BYTES")
    texts.set_data_from_numpy(np.array(TEXTS, np.object_), binary_data=binary)
    parameters = {"binary_data_output": True} if binary else None
    return InferRequest("intent", [texts], request_id="mine", parameters=parameters)


async def main(url: str) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        seen: dict[str, Any] = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, "intent"),
            "unknown_model_ready": await client.is_model_ready(url, "nosuch"),
        }
        for mode, binary in (("plain", False), ("binary", True)):
            answer = await client.infer(url, request(binary), model_name="intent")
            columns = {output.name: output.as_numpy().tolist() for output in answer.outputs}
            columns["label"] = [v.decode() if isinstance(v, bytes) else v for v in columns["label"]]
            seen[mode] = {"id": answer.id, "model_name": answer.model_name, "outputs": columns}
        return seen


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
