"""Token ids in one array are those of the tokenizer, and Hugging Face's sampler by length reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from export.base_model import DEFAULT_BASE
from export.checkpoint import load_base
from models.training.tokens import TokenizedExamples, tokenize

TEXTS = [f"text number {i} " + "word " * (i % 40) for i in range(2500)] + [""]


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return load_base(DEFAULT_BASE)[1]


def test_the_ids_are_the_tokenizer_s(tokenizer: object) -> None:
    rows = tokenize(tokenizer, TEXTS, 32)  # type: ignore[arg-type]
    expected = tokenizer(TEXTS, truncation=True, max_length=32)["input_ids"]  # type: ignore[operator]
    assert [row.tolist() for row in rows] == expected
    (spelled,) = tokenize(tokenizer, ["late 😡"], 32)  # type: ignore[arg-type]
    assert spelled.tolist() == tokenizer("late pouting face")["input_ids"]  # type: ignore[operator]
    assert rows[0].dtype == np.int32
    assert list(tokenize(tokenizer, [], 32)) == []  # type: ignore[arg-type]
    for beyond in (-1, len(TEXTS)):
        with pytest.raises(IndexError):
            rows[beyond]


def test_the_sampler_by_length_reads_them(tokenizer: object) -> None:
    data = TokenizedExamples(tokenize(tokenizer, TEXTS, 32), torch.arange(len(TEXTS)))  # type: ignore[arg-type]
    assert sorted(LengthGroupedSampler(32, dataset=data, model_input_name="input_ids")) == list(range(len(TEXTS)))
    assert data[7]["label"] == 7
