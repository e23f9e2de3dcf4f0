"""The in-process limit: throughput of the exported intent model with onnxruntime and tokenizers alone, without HTTP.

Tokenization is included. Texts are grouped by length over the whole corpus, which a server that answers at once cannot
do. `sweep` finds the fastest batch sizes and numbers of processes and threads; `measure` measures one setting.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BATCHES = (4, 8, 16, 32)
CONTENDERS = 2  # kept from the sweep: its first is not always the fastest, and a low limit flatters Flywheel
START_TIMEOUT_S = 120


@dataclass(frozen=True)
class Setting:
    processes: int
    threads: int  # of each process
    batch: int

    def __str__(self) -> str:
        return f"{self.processes} processes x {self.threads} threads, batch {self.batch}"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def settings() -> list[Setting]:
    shapes = dict.fromkeys([(cores(), 1), (1, cores())])  # the same setting on one core
    return [Setting(processes, threads, batch) for processes, threads in shapes for batch in BATCHES]


class Model:
    """The bundle run as a replica runs it, but by none of Flywheel's code."""

    def __init__(self, bundle: Path, threads: int):
        import onnxruntime as ort

        self._tokenizer = tokenizer(bundle)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # As in Flywheel's session: this fusion is slower than what it replaces (docs/decisions/0008-graph.md).
        self._session = ort.InferenceSession(
            str(bundle / "model.onnx"),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],
        )

    def tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text).ids)

    def run(self, texts: list[str]) -> None:
        import numpy as np

        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        self._session.run(None, {"input_ids": ids, "attention_mask": mask})


def tokenizer(bundle: Path) -> Any:
    """The bundle's tokenizer: no padding, texts truncated to the model's maximum length."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    loaded.no_padding()
    loaded.enable_truncation(json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["max_length"])
    return loaded


def sweep(bundle: Path, texts: list[str], seconds: float) -> dict[Setting, float]:
    """Texts a second of each setting, the fastest first; the better of two passes, because machines are noisy."""
    found = dict.fromkeys(settings(), 0.0)
    for setting in [*found, *found]:
        found[setting] = max(found[setting], measure(bundle, texts, setting, seconds))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def settle(rounds: Sequence[dict[str, Any]]) -> Setting:
    """The setting that was the fastest over all rounds; sets each round's `limit_rps` and `limit_drift` from it.

    A round's `limits` maps each contender to its rates before and after Flywheel was measured. Its keys become strings,
    so that it can be written as JSON.
    """
    best: Setting = max(rounds[0]["limits"], key=lambda s: statistics.median(sum(r["limits"][s]) for r in rounds))
    for r in rounds:
        sides = r["limits"][best]
        r["limit_rps"], r["limit_drift"] = statistics.mean(sides), max(sides) / min(sides)
        r["limits"] = {str(setting): rates for setting, rates in r["limits"].items()}
    return best


def measure(bundle: Path, texts: list[str], setting: Setting, seconds: float) -> float:
    """Texts a second, summed over the setting's processes."""
    return sum(rate for rate, _ in _run(bundle, texts, setting, seconds))


def batch1_ms(bundle: Path, texts: list[str], seconds: float) -> float:
    """Median milliseconds of one text through tokenizer and session, with one thread, as a replica has."""
    return _run(bundle, texts, Setting(1, 1, 1), seconds)[0][1] * 1000


def labels(bundle: Path, texts: Sequence[str]) -> dict[str, str]:
    """The encoder's label of each text, as the peers run it. Its labels do not depend on the other texts of a batch."""
    from loadtests.peers.model import Model as PeersModel

    model = PeersModel(bundle, cores())
    ordered = sorted(texts, key=len)
    batches = [ordered[at : at + BATCHES[-1]] for at in range(0, len(ordered), BATCHES[-1])]
    return {t: one["label"] for batch in batches for t, one in zip(batch, model.predict(batch), strict=True)}


def _run(bundle: Path, texts: list[str], setting: Setting, seconds: float) -> list[tuple[float, float]]:
    context = multiprocessing.get_context("spawn")  # onnxruntime's threads do not survive a fork
    barrier, results = context.Barrier(setting.processes), context.Queue()
    common = (bundle, texts, setting, seconds, barrier, results)
    workers = [context.Process(target=_worker, args=(n, *common), daemon=True) for n in range(setting.processes)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=START_TIMEOUT_S + seconds) for _ in workers]
    for worker in workers:
        worker.join()
    return found


def _worker(
    number: int, bundle: Path, texts: list[str], setting: Setting, seconds: float, barrier: Any, results: Any
) -> None:
    if setting.processes > 1:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in the server
    model = Model(bundle, setting.threads)
    ordered = sorted(texts, key=model.tokens)
    batches = [ordered[at : at + setting.batch] for at in range(0, len(ordered), setting.batch)]
    random.Random(number).shuffle(batches)  # so that every part of a pass has short and long batches
    for batch in batches[:10]:
        model.run(batch)
    barrier.wait(START_TIMEOUT_S)
    times, done, began = [], 0, time.perf_counter()
    while (started := time.perf_counter()) - began < seconds:
        batch = batches[len(times) % len(batches)]
        model.run(batch)
        times.append(time.perf_counter() - started)
        done += len(batch)
    results.put((done / (time.perf_counter() - began), statistics.median(times)))
