"""The corpus that a version was trained on is kept, and read again only as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data.dataset import (
    DatasetError,
    Example,
    _rows,
    fingerprint,
    load_corpus,
    load_dataset,
    save_corpus,
)
from models.home import corpus_file
from tests.helpers.own_corpus import own_data


def test_a_kept_corpus_is_the_one_that_was_read(tmp_path: Path) -> None:
    odd = [Example('two\nlines, "quoted" — ☂\u2028', "a"), Example("b", "b")]
    dataset = load_dataset("intent", own_data(tmp_path))
    dataset = dataset._replace(train=[*dataset.train, *odd])
    save_corpus(dataset, tmp_path / "kept.jsonl")
    kept = load_dataset("intent", tmp_path / "kept.jsonl")
    assert (kept.train, kept.holdout) == (dataset.train, dataset.holdout)


def test_a_corpus_kept_before_labels_were_normalized_is_read_as_it_is(tmp_path: Path) -> None:
    dataset = load_dataset("intent", own_data(tmp_path))
    train = [*dataset.train, Example("a", "astronomy "), Example("b", "A\u0308")]
    old = dataset._replace(train=train, fingerprint=fingerprint(_rows(train, dataset.holdout)))
    file = corpus_file(tmp_path, "intent", old.fingerprint)
    file.parent.mkdir(parents=True)
    save_corpus(old, file)
    assert load_corpus(tmp_path, "intent", old.lineage()) == old


def test_a_home_without_corpora_falls_back_to_the_seed(tmp_path: Path) -> None:
    seed = load_dataset("intent")
    assert load_corpus(tmp_path, "intent", seed.lineage()) == seed


def test_a_corpus_that_is_nowhere_is_named_with_the_remedy(tmp_path: Path) -> None:
    lineage = load_dataset("intent", own_data(tmp_path)).lineage()
    with pytest.raises(
        DatasetError, match=r"'own' that intent was trained on is not in .*flywheel train intent --data"
    ):
        load_corpus(tmp_path, "intent", lineage)


def test_a_corpus_that_was_changed_is_refused(tmp_path: Path) -> None:
    dataset = load_dataset("intent", own_data(tmp_path))
    file = corpus_file(tmp_path, "intent", dataset.fingerprint)
    file.parent.mkdir(parents=True)
    save_corpus(dataset._replace(train=dataset.train[1:]), file)
    with pytest.raises(DatasetError, match="is damaged"):
        load_corpus(tmp_path, "intent", dataset.lineage())
