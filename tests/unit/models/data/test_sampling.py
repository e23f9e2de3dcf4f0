"""What training and evaluation must agree on, and samples in which each label has its part."""

from __future__ import annotations

from collections import Counter

import numpy as np

from models.data.dataset import Example
from models.data.interactions import Events, histories
from models.data.sampling import balanced_sample
from models.tasks.ranker import HISTORY
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


def test_a_history_is_what_was_chosen_until_then_and_no_longer_than_serving_reads() -> None:
    numbers = np.arange(2 * HISTORY + 6)
    of_one = Events.of(numbers * 0, numbers, numbers % 2 == 0, numbers, before=numbers == 0)
    found = histories(of_one)
    assert found[:4] == [[], [0], [0], [0, 2]]
    assert found[-1] == [*range(6, 2 * HISTORY + 6, 2)]
    assert len(found[-1]) == HISTORY
    of_two = of_one.joined(Events.of([1, 1], [0, 1], [False, True], [0, 1]))
    assert histories(of_two)[-2:] == [[], []]


def test_texts_that_a_reader_takes_for_the_same_have_one_key() -> None:
    same = ("Where is  my Straße?", " where is my STRASSE? ", "where is\u00a0my strasse\uff1f")
    assert len({same_text_key(text) for text in same}) == 1
    assert same_text_key("where is my strasse!") != same_text_key(same[0])
