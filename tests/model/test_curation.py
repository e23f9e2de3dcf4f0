"""Curation of real texts with wrong labels planted among them, by a real embedding."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.curation.pipeline import Context, Curated, Rules, curate
from models.curation.types import Embed
from models.data.dataset import Example, load_dataset
from models.data.records import read_rows
from models.feedback.pii import redact
from models.feedback.types import Sample
from models.text import words
from tests.helpers.command import ROOT
from tests.helpers.embedding import latent

START = datetime(2026, 1, 1, tzinfo=UTC)


BANKING = ROOT.parent / "shared" / "data" / "banking77"


def kept(curated: Curated) -> list[int]:
    return [sample.id for sample in curated.kept]


class Planted:
    """Feedback for labels that were taken out of a corpus, three sources in turn, with wrong labels planted."""

    def __init__(
        self, corpus: list[Example], new: set[str], wrong: float, wrong_source: str | None = None, most: int = 100_000
    ) -> None:
        chosen = random.Random(7)
        labels = sorted({example.label for example in corpus})
        rows = chosen.sample(found := [example for example in corpus if example.label in new], min(most, len(found)))
        self.base = [example for example in corpus if example.label not in new]
        self.samples: list[Sample] = []
        self.wrong: set[int] = set()
        for number, (text, label) in enumerate(rows, start=1):
            source = f"source {number % 3}"
            given_label = label
            if wrong_source in (None, source) and chosen.random() < wrong:
                given_label = chosen.choice([other for other in labels if other != label])
                self.wrong.add(number)
            at = START + timedelta(seconds=number)
            self.samples.append(Sample(number, "intent", text, given_label, source, at))
        for original in chosen.sample(self.samples, len(self.samples) // 5):
            number = len(self.samples) + 1
            text = chosen.choice([original.text, original.text.upper() + "!", "please " + original.text])
            self.samples.append(replace(original, id=number, text=text))
            if original.id in self.wrong:
                self.wrong.add(number)

    def curate(self, embed: Embed, holdout: Sequence[str] = (), rules: Rules | None = None) -> Curated:
        labels = frozenset(example.label for example in self.base)
        knowledge = Context(labels, self.base, holdout, embed, redact, new_labels=True)
        return curate(self.samples, knowledge, rules or Rules())


@pytest.fixture(scope="module")
def seed() -> list[Example]:
    return load_dataset("intent").train


@pytest.fixture(scope="module")
def embed(seed: list[Example]) -> Embed:
    return latent([example.text for example in seed])


NEW = {"cancel_order", "get_refund", "track_order", "recover_password"}


def test_a_tenth_of_wrong_labels_is_mostly_quarantined(seed: list[Example], embed: Embed) -> None:
    planted = Planted(seed, NEW, 0.1)
    assert len(planted.wrong) > 40
    curated = planted.curate(embed)
    settled = len(curated.kept) + len(curated.dropped) + len(curated.quarantined) + len(curated.deferred)
    assert settled == len(planted.samples) == curated.report.received
    judged = planted.wrong - set(curated.dropped)
    caught = judged & set(curated.quarantined)
    assert len(caught) >= 0.8 * len(judged)
    assert len(set(kept(curated)) & planted.wrong) <= 0.02 * len(curated.kept)
    assert len(set(curated.quarantined) - planted.wrong) <= 0.05 * len(planted.samples)
    assert "suspected source" not in curated.report.reasons["quarantined"]


def test_a_third_of_wrong_labels_condemns_their_source_and_no_other(seed: list[Example], embed: Embed) -> None:
    planted = Planted(seed, NEW, 0.3, "source 0")
    curated = planted.curate(embed)
    assert {sample.source for sample in curated.kept} == {"source 1", "source 2"}
    assert curated.report.reasons["quarantined"]["suspected source"] > 50
    assert not set(kept(curated)) & planted.wrong
    good = [sample.id for sample in planted.samples if sample.source != "source 0"]
    assert len(set(good) & set(curated.quarantined)) <= 0.05 * len(good)


@pytest.mark.slow
def test_a_condemned_source_takes_no_honest_sample_with_it(seed: list[Example], embed: Embed) -> None:
    planted = Planted(seed, NEW, 0.3, "source 0")
    copied = next(
        s for s in planted.samples if s.source == "source 0" and s.id not in planted.wrong and len(s.text) > 30
    )
    honest = replace(copied, id=10_000, source="source 1", at=copied.at + timedelta(days=1))
    planted.samples.append(honest)
    curated = planted.curate(embed)
    assert copied.id not in kept(curated)
    witnesses = [sample for sample in curated.kept if words(sample.text) == words(copied.text)]
    assert witnesses == [replace(honest, text=redact(honest.text))]
    assert honest.id not in curated.dropped


def test_the_same_input_gives_the_same_result(seed: list[Example], embed: Embed) -> None:
    planted = Planted(seed, NEW, 0.1, most=200)
    first, second = planted.curate(embed), planted.curate(embed)
    assert first == second
    assert json.loads(json.dumps(first.report.to_dict())) == first.report.to_dict()


def remembered(embed: Embed) -> Embed:
    known: dict[str, NDArray[np.float32]] = {}

    def vectors(texts: Sequence[str]) -> NDArray[np.float32]:
        if unseen := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(unseen, embed(unseen), strict=True))
        return np.stack([known[text] for text in texts])

    return vectors


def banking(name: str) -> list[Example]:
    rows = read_rows(Path(BANKING / name), required=("text", "label"))
    return [Example(row["text"], row["label"]) for _, row in rows]


@pytest.mark.skipif(not BANKING.is_dir(), reason="needs Banking77 at ../shared/data/banking77")
def test_new_intents_of_banking77() -> None:
    from models.curation.embeddings import base_encoder

    corpus = banking("train.csv")
    new = set(random.Random(1).sample(sorted({example.label for example in corpus}), 4))
    known = sorted({example.label for example in corpus} - new)[::6]
    corpus = [example for example in corpus if example.label in new or example.label in known]
    held_out = [example.text for example in banking("test.csv")]
    encode = remembered(base_encoder())
    rules = Rules(replay_a_label=20, min_replay=0)

    tenth = Planted(corpus, new, 0.1)
    curated = tenth.curate(encode, held_out, rules)
    judged = tenth.wrong - set(curated.dropped)
    assert len(judged & set(curated.quarantined)) >= 0.8 * len(judged)
    assert len(set(curated.quarantined) - tenth.wrong) <= 0.03 * len(tenth.samples)
    assert {sample.label for sample in curated.kept} >= new

    third = Planted(corpus, new, 0.3, "source 0")
    curated = third.curate(encode, held_out, rules)
    assert {sample.source for sample in curated.kept} == {"source 1", "source 2"}
