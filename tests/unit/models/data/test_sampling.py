"""What training and evaluation must agree on, and samples in which each label has its part."""

from __future__ import annotations

from collections import Counter

import numpy as np

from models.data.dataset import Example
from models.data.histories import histories_of
from models.data.sampling import balanced_sample
from models.text import same_text_key

MANY = [Example(f"text {n}", "many") for n in range(50)]
FEW = [Example(f"rare {n}", "few") for n in range(4)]


def test_each_label_gives_as_many_as_it_has_up_to_its_part() -> None:
    sample = balanced_sample([*MANY, *FEW], 10, 0, seed=3)
    assert Counter(example.label for example in sample) == {"many": 10, "few": 4}
    assert len(set(sample)) == len(sample)
    assert sample == balanced_sample([*MANY, *FEW], 10, 0, seed=3) != balanced_sample([*MANY, *FEW], 10, 0, seed=4)


def test_few_labels_give_more_than_their_part_where_it_would_be_too_little() -> None:
    assert len(balanced_sample([*MANY, *FEW], 10, 60, seed=3)) == 30 + 4
    assert balanced_sample([], 10, 60, seed=3) == []


def test_a_history_has_each_item_once_and_chosen_if_it_was_chosen_once() -> None:
    user, item = np.array([1, 0, 0, 0, 3]), np.array([2, 2, 2, 1, 0])
    chosen, weight = np.array([False, False, True, True, True]), np.array([1, 9, 2, 1, 1], np.float32)
    found = histories_of(user, item, chosen, weight, users=4, items=3)
    assert found.starts.tolist() == [0, 2, 3, 3, 4]
    assert found.item.tolist() == [1, 2, 2, 0]
    assert found.chosen.tolist() == [True, True, False, True]
    assert found.weight.tolist() == [1.0, 2.0, 1.0, 1.0]
    assert found.rows_of(np.array([0, 0, 2]), np.array([2, 0, 0]), items=3).tolist() == [1, -1, -1]


def test_texts_that_a_reader_takes_for_the_same_have_one_key() -> None:
    same = ("Where is  my Straße?", " where is my STRASSE? ", "where is\u00a0my strasse\uff1f")
    assert len({same_text_key(text) for text in same}) == 1
    assert same_text_key("where is my strasse!") != same_text_key(same[0])
