"""infinity's `/classify` with its optimum (onnxruntime) engine.

Follows the CLI's documentation: `infinity_emb v2 --engine optimum`, one process, onnxruntime's own threads. It
serves a Hugging Face folder, so one is built of the bundle beside the running server. Its answers come from the
transformers pipeline: every label's score, without the intent task's rule on out-of-scope.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import onnx


def hugging_face_folder(bundle: Path, folder: Path) -> None:
    """The same graph and tokenizer in the layout optimum reads; its one output must be called `logits`."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    names = dict(enumerate(manifest["labels"]))
    graph = onnx.load(bundle / "model.onnx")
    for node in graph.graph.node:
        for i, name in enumerate(node.output):
            if name == manifest["output"]:
                node.output[i] = "logits"
    graph.graph.output[0].name = "logits"
    onnx.save(graph, folder / "model.onnx")
    (folder / "tokenizer.json").write_bytes((bundle / "tokenizer.json").read_bytes())
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "id2label": names,
        "label2id": {label: i for i, label in names.items()},
    }
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = {"tokenizer_class": "BertTokenizerFast", "model_max_length": manifest["max_length"], **special}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", required=True)
    arguments = parser.parse_args()
    # uvicorn sends itself the signal again when it has stopped: as an interrupt, so that the folder is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        hugging_face_folder(arguments.bundle, Path(temporary))
        os.chdir(temporary)  # optimum finds a graph of a local folder only by its relative path
        os.environ |= {"HF_HOME": f"{temporary}/cache", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        options = {"model-id": ".", "served-model-name": "intent", "engine": "optimum", "device": "cpu"}
        options |= {"batch-size": "32", "host": "127.0.0.1", "port": arguments.port, "log-level": "warning"}
        # It warms up with 512 words, and truncates nothing for a classifier: past the graph's 512 tokens.
        sys.argv[1:] = ["v2", "--no-model-warmup", *(f"--{name}={value}" for name, value in options.items())]
        from infinity_emb.cli import cli  # only now: it reads the environment when imported

        cli()
