"""A million rows of twenty words are read, checked, trained on and exported in bounded memory."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from export.base_model import DEFAULT_BASE
from export.bundle import Bundle
from export.checkpoint import load_base
from models.training.linear_reader import MAX_LABELS
from tests.helpers.command import ROOT
from tests.helpers.server import children

ROWS, WORDS = 1_000_000, 20
MAX_MB = 4096


def write_corpus(file: Path, rows: int, labels: int) -> None:
    """Rows whose first word tells the label; one label has 99 % of the rows."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(3, 8))) for _ in range(20_000)]
    with file.open("w") as out:
        out.write("text,label\n")
        for i in range(rows):
            label = 0 if i % 100 else i // 100 % labels
            out.write(" ".join([vocabulary[label], *rng.choices(vocabulary, k=WORDS - 1)]) + f",label {label}\n")


def tiny_base(folder: Path) -> Path:
    """An untrained encoder of two small layers: memory for texts and labels is what is measured, not the model's."""
    _, tokenizer = load_base(DEFAULT_BASE)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def memory_mb(pid: int) -> float:
    """The memory of a process and its children, shared pages counted once."""
    total = 0
    for one in (pid, *children(pid, "")):
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


@pytest.mark.slow
@pytest.mark.parametrize("labels", [2000, 400])  # too many for a linear reader, and few enough for one
def test_a_million_rows_are_trained_on_in_four_gigabytes(labels: int, tmp_path: Path) -> None:
    write_corpus(tmp_path / "large.csv", ROWS, labels)
    command = [
        Path(sys.executable).parent / "flywheel", "train", "intent", "--data", tmp_path / "large.csv",
        "--base", tiny_base(tmp_path / "base"), "--max-steps", "30",
    ]  # fmt: skip
    environment = {**os.environ, "FLYWHEEL_HOME": str(tmp_path / "home")}
    with (tmp_path / "log").open("w") as log, subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        stages: dict[str, float] = {}
        while process.poll() is None:
            reported = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("intent: ")]
            stage = reported[-1].split()[1] if reported else "checking"
            stages[stage] = max(memory_mb(process.pid), stages.get(stage, 0.0))
            time.sleep(0.3)
    print(*(f"{mb:6.0f} MB at most while {stage}" for stage, mb in stages.items()), sep="\n")
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert max(stages.values()) < MAX_MB
    manifest = Bundle.open(tmp_path / "home" / "bundles" / "intent" / "1").manifest
    assert len(manifest.labels) == labels
    assert (manifest.linear is not None) == (labels <= MAX_LABELS)
    assert (manifest.data.train_rows or 0) + (manifest.data.holdout_rows or 0) == ROWS
