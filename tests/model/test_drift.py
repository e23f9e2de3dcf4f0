"""Drift of real texts, by a real embedding: what did change is told from what did not."""

from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import load_dataset, read_rows
from models.evaluation.drift import drift_of_lengths
from tests.helpers.command import ROOT
from tests.helpers.embedding import latent

DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


def test_the_seed_corpora(random: np.random.Generator) -> None:
    intent = [example.text for example in load_dataset("intent").train]
    finance = [example.text for example in load_dataset("sentiment").train]
    random.shuffle(intent)
    embed = latent(intent[:2000])
    then = embed(intent[:2000])
    assert not drift_of_lengths(then, embed(intent[2000:])).drifted
    assert drift_of_lengths(then, embed(finance[:200])).drifted
    assert drift_of_lengths(then, embed(intent[2000:2150] + finance[:150])).drifted


@pytest.mark.skipif(not DATA.is_dir(), reason="needs Banking77 and the Financial PhraseBank at ../shared/data")
def test_real_texts(random: np.random.Generator) -> None:
    from models.curation.embeddings import base_encoder

    def texts(name: str, count: int) -> list[str]:
        rows = [row["text"] for _, row in read_rows(DATA / name, required=("text", "label"))]
        return [rows[at] for at in random.permutation(len(rows))[:count]]

    encode = base_encoder()
    banking, later = texts("banking77/train.csv", 600), texts("banking77/test.csv", 300)
    news = texts("financial_phrasebank/train.csv", 300)
    then = encode(banking)
    assert not drift_of_lengths(then, encode(later)).drifted
    assert drift_of_lengths(then, encode(news)).drifted
    lengths = [len(text) for text in banking]
    assert not drift_of_lengths(lengths, [len(text) for text in later]).drifted
    assert drift_of_lengths(lengths, [len(text) for text in news]).drifted
