"""The automatic split: near a tenth, bounded, and every label has a text to train on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from models.data.dataset import DatasetError, load_dataset
from models.data.split import MAX_HOLDOUT, hold_out, text_key
from tests.helpers.labelled import as_csv, write

NONE = np.zeros(0, np.int32)


@pytest.mark.parametrize("texts", [2, 3, 4, 5, 8, 10])
@pytest.mark.parametrize("labels", [2, 3, 27])
def test_a_few_texts_a_label_are_enough(texts: int, labels: int, tmp_path: Path) -> None:
    for seed in range(20):
        rows = [(f"{seed} text {i} of {label}", f"label {label}") for label in range(labels) for i in range(texts)]
        dataset = load_dataset("intent", write(tmp_path, as_csv(rows)))
        assert len(dataset.labels) == labels
        assert dataset.holdout
        assert sorted(dataset.train + dataset.holdout) == sorted(rows)


def test_labels_with_one_text_stay_in_the_training_part(tmp_path: Path) -> None:
    rows = [(f"large {i}", f"large {i % 2}") for i in range(300)] + [(f"only {i}", f"rare {i}") for i in range(40)]
    dataset = load_dataset("intent", write(tmp_path, as_csv(rows)))
    assert len(dataset.labels) == 42
    assert {example.label for example in dataset.holdout} == {"large 0", "large 1"}


def test_a_single_text_a_label_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"too few rows to hold any out \(2\)"):
        load_dataset("intent", write(tmp_path, as_csv([("a", "x"), ("b", "y")])))


def test_a_text_under_two_labels_stays_on_one_side(tmp_path: Path) -> None:
    rows = [(f"text {i}", label) for i in range(200) for label in ("x", "y")]
    dataset = load_dataset("intent", write(tmp_path, as_csv(rows)))
    assert not {example.text for example in dataset.train} & {example.text for example in dataset.holdout}


def test_the_holdout_is_bounded_and_a_file_that_grows_trains_on_no_new_holdout_row() -> None:
    keys = np.array([text_key(f"text {i}") for i in range(40 * MAX_HOLDOUT)], np.uint64)
    labels = np.zeros(len(keys), np.int32)
    small, large = (hold_out(keys[:n], labels[:n], NONE) for n in (20 * MAX_HOLDOUT, len(keys)))
    assert small.sum() == large.sum() == MAX_HOLDOUT
    assert not (large[: len(small)] & ~small).any()


def test_two_thousand_labels_and_one_of_99_percent_are_split_within_a_second() -> None:
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(1_000_000) < 0.99, 0, rng.integers(1, 2000, 1_000_000)).astype(np.int32)
    keys = rng.integers(0, 2**63, len(labels)).astype(np.uint64)
    held = hold_out(keys, labels, NONE)
    assert held.sum() <= MAX_HOLDOUT
    assert set(np.unique(labels[~held])) == set(np.unique(labels))


def test_labels_of_rows_that_the_file_puts_into_training_may_be_held_out() -> None:
    keys = np.array([1, 2**63], np.uint64)
    assert hold_out(keys, np.array([0, 1], np.int32), np.array([0], np.int32)).tolist() == [True, False]
    assert Counter(hold_out(keys, np.array([0, 1], np.int32), NONE).tolist()) == {False: 2}
