"""The known questions of a bundle are chosen among a bounded number of texts, and are fewer with very many labels."""

from __future__ import annotations

from models.tasks.intent import OUT_OF_SCOPE, _candidate_questions, _questions_a_label


def test_the_matrix_of_known_questions_stays_small() -> None:
    assert [_questions_a_label(labels) for labels in (2, 28, 447, 1000, 2000, 5000)] == [20, 20, 20, 4, 1, 0]


def test_candidates_are_short_texts_of_each_label_but_out_of_scope() -> None:
    names = ("a", "b", OUT_OF_SCOPE, "none")
    rows = [(f"{name} {i}", name) for name in names[:3] for i in range(50)] + [("a " * 100, "a"), ("c 1", "c")]
    texts, labels = zip(*rows, strict=True)
    found = dict(_candidate_questions(texts, labels, names, 10))
    assert sorted(found) == [0, 1]
    assert [len(candidates) for candidates in found.values()] == [10, 10]
    assert set(found[0]) <= {f"a {i}" for i in range(50)}
    assert dict(_candidate_questions(texts, labels, names, 50))[1] == [f"b {i}" for i in range(50)]
