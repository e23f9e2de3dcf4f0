"""Both readers of a classifier are trained whatever the corpus, or a note says why there is only one.

On a tiny base with random weights, whose encoder learns little: the linear reader beside it is what is tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.bundle import LINEAR, LinearRecord
from export.checkpoint import linear_record, text_encoder
from export.heads import softmax
from export.linear import LinearReader, ngram_keys
from models.data.dataset import Dataset, Example
from models.data.split import text_key
from models.training.blend import Validation, fit_blend
from models.training.config import CONTINUED, Recipe
from models.training.finetune import finetune_classifier
from models.training.training_set import TrainingSet
from models.training.two_readers import (
    MIN_VALIDATION,
    continue_linear_reader,
    split_validation,
    train_two_readers,
    why_no_reader,
    why_none_continued,
)
from tests.helpers.bases import FAMILIES, make_base
from tests.helpers.own_corpus import WORDS, labelled_texts

pytestmark = pytest.mark.usefixtures("one_torch_thread")
Reported = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(FAMILIES["bert"], tmp_path_factory.mktemp("base"))


def training_set(examples: Sequence[Example]) -> TrainingSet:
    return TrainingSet.of_corpus(Dataset("own", list(examples), list(examples[:4]), "fingerprint"))


def recipe(base: Path, steps: int = 1) -> Recipe:
    return Recipe(str(base), max_length=128, max_steps=steps)


def reader_of(checkpoint: Path, labels: int) -> tuple[LinearReader, LinearRecord]:
    record = linear_record(checkpoint)
    assert record is not None
    return LinearReader.load(checkpoint / LINEAR, record, labels), record


def answers(checkpoint: Path, labels: Sequence[str], texts: Sequence[str]) -> list[str]:
    reader, _ = reader_of(checkpoint, len(labels))
    return [labels[int(reader.read(ids).logits.argmax())] for ids in ids_of(checkpoint, texts)]


def ids_of(checkpoint: Path, texts: Sequence[str]) -> list[tuple[int, ...]]:
    from transformers import AutoTokenizer

    encoder = text_encoder(AutoTokenizer.from_pretrained(checkpoint), 128)
    return [row.ids for row in encoder.encode(list(texts))]


def corpora() -> Iterator[tuple[str, list[Example], str | None]]:
    """(what is odd, the texts, what the note says; None where both readers are trained)"""
    yield "one text a label", [Example(f"about {i}", f"topic {i}") for i in range(400)], "only 0 can be"
    yield "5,000 labels", [Example(f"about {i}", f"topic {i}") for i in range(5000)], "and these are 5,000"
    yield "texts of one word", [Example(f"word{i}", f"label {i % 3}") for i in range(900)], None
    yield "20 texts", labelled_texts(2, 10), "only 6 can be"
    yield "equal texts", [Example("all the same", f"label {i % 2}") for i in range(1000)], "only 0 can be"
    yield "5 times each text", labelled_texts(4, 250) * 5, None
    yield "300 texts, 20 times each", labelled_texts(3, 100) * 20, "only 75 can be"
    yield "two labels", labelled_texts(2, 450), None
    yield "long texts", labelled_texts(2, 425, words=400), None
    yield "no words", [Example("?!" * (i % 9 + 1) + "." * (i // 9 + 1), f"label {i % 2}") for i in range(900)], None


CASES = [
    *(pytest.param(examples, why, id=name) for name, examples, why in corpora()),
    pytest.param(labelled_texts(4, 250) * 100, None, id="100,000 duplicates", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("examples", "why"), CASES)
def test_an_odd_corpus(examples: list[Example], why: str | None, base: Path, tmp_path: Path) -> None:
    data, chosen = training_set(examples), recipe(base)
    note = why_no_reader(data, chosen.seed)
    train_two_readers(data, chosen, tmp_path / "out", lambda *_: None, finetune_classifier)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "the first checkpoint is gone"
    if why is not None:
        assert note is not None
        assert why in note
        assert note.startswith("It has no linear reader, so its encoder reads every text: ")
        assert linear_record(tmp_path / "out") is None
        return
    assert note is None
    reader, record = reader_of(tmp_path / "out", len(data.labels))
    assert np.isfinite([record.blend.encoder, record.blend.linear, record.blend.linear_alone]).all()
    logits = np.stack([reader.read(ids).logits for ids in ids_of(tmp_path / "out", data.texts[:50])])
    assert np.isfinite(logits).all()


def test_a_tokenizer_of_single_characters(tmp_path: Path) -> None:
    chosen = recipe(make_base(FAMILIES["bert-characters"], tmp_path / "base"))
    data = training_set(labelled_texts(3, 300))
    train_two_readers(data, chosen, tmp_path / "out", lambda *_: None, finetune_classifier)
    reader, record = reader_of(tmp_path / "out", 3)
    assert len(reader.vocabulary.keys) < 27 + 27**2 + 100, "characters and their pairs"
    unseen = labelled_texts(3, 30, seed=1)
    found = answers(tmp_path / "out", data.labels, [example.text for example in unseen])
    assert np.mean([one == example.label for one, example in zip(found, unseen, strict=True)]) > 0.6
    assert record.confidence is not None
    assert record.confidence.texts == len(split_validation(data.examples, chosen.seed)[1])
    assert record.early is None or record.early.agreement is None or record.early.agreement >= 0.99


def test_both_learn_the_validation_texts_too_and_steps_are_told(base: Path, tmp_path: Path) -> None:
    data = training_set(labelled_texts(4, 250))
    reported: Reported = []
    losses = train_two_readers(
        data, recipe(base, 2), tmp_path / "out", lambda *step: reported.append(step), finetune_classifier
    )
    assert [step for step, _ in losses] == sorted(step for step, _ in losses)
    stages = list(dict.fromkeys(stage for stage, _, _ in reported))
    assert stages == ["training", "linear reader", "finishing"]
    linear = [(done, total) for stage, done, total in reported if stage == "linear reader"]
    assert [done for done, _ in linear] == [*range(6 * 4 + 1), *range(4 * 4 + 1)]
    assert {total for _, total in linear} == {6 * 4, 4 * 4}
    reader, record = reader_of(tmp_path / "out", 4)
    pairs = np.concatenate([ngram_keys(ids, record.max_ngram) for ids in ids_of(tmp_path / "out", data.texts)])
    assert set(reader.vocabulary.keys.tolist()) == set(pairs.tolist())
    unseen = labelled_texts(4, 50, seed=1)
    found = answers(tmp_path / "out", data.labels, [example.text for example in unseen])
    assert np.mean([one == example.label for one, example in zip(found, unseen, strict=True)]) > 0.95


def test_labels_of_one_text_of_equal_texts_and_of_none(base: Path, tmp_path: Path) -> None:
    odd = [Example("something of its own", "rare"), *[Example("all the same", "same")] * 300]
    data = training_set([*labelled_texts(3, 300), *odd])
    data = replace(data, labels=[*data.labels, "unseen"])  # as when only the holdout has it
    assert why_no_reader(data, 7) is None
    train_two_readers(data, recipe(base), tmp_path / "out", lambda *_: None, finetune_classifier)
    reader, record = reader_of(tmp_path / "out", 6)
    assert not reader.weights[:, 5].any()
    found = answers(tmp_path / "out", data.labels, data.texts)
    assert "unseen" not in found
    assert found[-301:] == ["rare", *["same"] * 300]
    if record.early is not None:
        assert record.early.label_above["unseen"] >= 1
        assert record.early.label_above["rare"] >= 1


def test_an_interrupted_training_leaves_no_checkpoint(base: Path, tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "linear reader" and done == 3:
            raise KeyboardInterrupt

    data = training_set(labelled_texts(4, 250))
    with pytest.raises(KeyboardInterrupt):
        train_two_readers(data, recipe(base), tmp_path / "out", interrupt, finetune_classifier)
    assert not list(tmp_path.iterdir())


def test_the_split_keeps_texts_together_and_labels_in_proportion() -> None:
    examples = [*labelled_texts(4, 500), *labelled_texts(4, 100, seed=1), Example("alone", "rare")]
    examples += [replace_case(example) for example in examples[:300]]
    rest, held = split_validation(examples, 7)
    keys = [{" ".join(example.text.lower().split()) for example in side} for side in (rest, held)]
    assert not keys[0] & keys[1]
    assert len(held) == len({(example.text.lower(), example.label) for example in held}) >= MIN_VALIDATION
    assert not any(example.label == "rare" for example in held)
    counts = [sum(example.label == f"label {label}" for example in held) for label in range(4)]
    assert max(counts) - min(counts) <= 2
    assert split_validation(examples, 7) == (rest, held)
    assert split_validation([], 7) == ([], [])


def test_the_validation_texts_of_the_corpus_are_taken_if_they_are_enough() -> None:
    examples = labelled_texts(3, 300)
    named = examples[:: 900 // MIN_VALIDATION][:MIN_VALIDATION]
    rest, held = split_validation(examples, 7, {text_key(example.text) for example in named})
    assert held == named
    assert rest == [example for example in examples if example not in named]
    few = {text_key(example.text) for example in named[1:]}
    assert split_validation(examples, 7, few) == split_validation(examples, 7)


def test_rare_labels_beside_a_very_frequent_one_have_validation_texts() -> None:
    examples = [Example(f"text {i}", f"label {i // 100 % 100}" if i % 100 == 0 else "frequent") for i in range(50_000)]
    rest, held = split_validation(examples, 7)
    assert 950 <= len(held) <= 1050
    rare = sum(example.label != "frequent" for example in held)
    assert 3 <= rare <= 20, "a hundredth, as in the data"
    assert len({example.label for example in rest}) == 101


def test_readers_that_have_every_validation_text_right_are_not_believed_without_bound() -> None:
    truth = np.arange(400) % 4
    logits = np.eye(4, dtype=np.float32)[truth]
    blend = fit_blend(Validation(encoder=logits, linear=logits, known=np.ones(400), truth=truth))
    confidence = softmax((blend.encoder + blend.linear) * logits).max(1)
    assert 0.995 < confidence.min() < 0.9999


def replace_case(example: Example) -> Example:
    return Example(f"  {example.text.upper()} ", example.label)


# Versions that continue from another.


@pytest.fixture(scope="module")
def parent(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSet, Path]:
    """The corpus and the checkpoint of a version with four labels."""
    data, out = training_set(labelled_texts(4, 250)), tmp_path_factory.mktemp("parent") / "1"
    train_two_readers(data, recipe(base, 2), out, lambda *_: None, finetune_classifier)
    return data, out


def continued(
    data: TrainingSet, start: Path, out: Path, samples: Sequence[Example], learned: Sequence[Example] = ()
) -> TrainingSet:
    """What a retraining does: the encoder continues on the samples, and the linear reader is trained beside it."""
    from export.checkpoint import checkpoint_labels

    chosen = replace(CONTINUED, max_steps=1)
    mixed = TrainingSet.of_corrections(data.corpus, "1", checkpoint_labels(start), samples, learned, chosen)
    finetune_classifier(mixed, chosen, out, lambda *_: None, start)
    continue_linear_reader(mixed, chosen, start, out, lambda *_: None)
    return mixed


def corrections(word: str, label: str, count: int, seed: int) -> list[Example]:
    """Texts that look like those of the corpus, but for a word that none of these has."""
    return [
        Example(f"{example.text} {word} {WORDS[i % len(WORDS)]}", label)
        for i, example in enumerate(labelled_texts(4, count // 4, seed=seed))
    ]


REFUNDS = corrections("xq", "refund", 40, 2)


@pytest.fixture(scope="module")
def second(parent: tuple[TrainingSet, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSet, Path]:
    """A version that learned a new label."""
    out = tmp_path_factory.mktemp("second") / "2"
    return continued(*parent, out, REFUNDS), out


def test_retrainings_in_a_row_learn_new_labels_and_keep_old_ones(
    parent: tuple[TrainingSet, Path], second: tuple[TrainingSet, Path], tmp_path: Path
) -> None:
    data, start = parent
    third = continued(data, second[1], tmp_path / "3", corrections("zv", "parcel", 40, 3), REFUNDS)
    assert third.labels == ["label 0", "label 1", "label 2", "label 3", "parcel", "refund"]
    for mixed, checkpoint in (second, (third, tmp_path / "3")):
        seen = answers(checkpoint, mixed.labels, data.texts)
        assert np.mean([one == example.label for one, example in zip(seen, data.examples, strict=True)]) > 0.95
    new = [*corrections("xq", "refund", 40, 4), *corrections("zv", "parcel", 40, 5)]
    found = answers(tmp_path / "3", third.labels, [example.text for example in new])
    assert np.mean([one == example.label for one, example in zip(found, new, strict=True)]) > 0.9
    records = [reader_of(path, n)[1] for path, n in ((start, 4), (second[1], 5), (tmp_path / "3", 6))]
    assert len({(r.blend.encoder, r.blend.linear, r.blend.linear_alone, r.max_ngram) for r in records}) == 1


def test_erased_corrections_are_not_in_the_next_reader(
    parent: tuple[TrainingSet, Path], second: tuple[TrainingSet, Path], tmp_path: Path
) -> None:
    kept = corrections("zv", "parcel", 40, 3)
    # The store gives no erased correction to replay.
    third = continued(parent[0], second[1], tmp_path / "3", kept)
    (ids,) = ids_of(parent[1], ["xq"])
    pair = ngram_keys(ids, 2)[-2]
    before, after = (reader_of(path, n)[0].vocabulary.keys for path, n in ((second[1], 5), (tmp_path / "3", 6)))
    assert pair in before
    assert pair not in after
    assert "refund" in third.labels, "its encoder still has the label"
    assert "refund" not in answers(tmp_path / "3", third.labels, [example.text for example in kept])


def test_a_corrected_text_has_its_new_label(parent: tuple[TrainingSet, Path], tmp_path: Path) -> None:
    data, start = parent
    wrong = [Example(example.text.upper(), "label 3") for example in data.examples[:60]]
    mixed = continued(data, start, tmp_path / "2", wrong)
    assert len(mixed.known_examples) == len(data.examples)
    found = answers(tmp_path / "2", mixed.labels, [example.text for example in wrong])
    assert found.count("label 3") > 50


def test_a_parent_without_a_reader_continues_without_one(parent: tuple[TrainingSet, Path], tmp_path: Path) -> None:
    import shutil

    data, start = parent
    assert why_none_continued(start, "1", 5) is None
    old = Path(shutil.copytree(start, tmp_path / "1"))
    shutil.rmtree(old / LINEAR)
    continued(data, old, tmp_path / "2", corrections("xq", "refund", 40, 2))
    assert not (tmp_path / "2" / LINEAR).exists()
    note = why_none_continued(old, "1", 5)
    assert note is not None
    assert "version 1, from which it continues, has none" in note
    assert "at most 500 labels, and these are 501" in (why_none_continued(start, "1", 501) or "")
