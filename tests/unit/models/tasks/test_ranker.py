"""The ranking model in numpy: its parts add up to the logit, whatever the request has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.tasks.ranker import Candidates, Features, Past, Ranker, Rate, probability

ITEMS, D = 6, 4


def features(rng: np.random.Generator, *names: str) -> Features:
    return Features(names, np.zeros(len(names)), np.ones(len(names)), rng.normal(size=len(names)),
                    rng.normal(size=(len(names), D)), D)  # fmt: skip


def ranker() -> Ranker:
    rng = np.random.default_rng(0)
    arrays = {
        "item_vectors": rng.normal(size=(ITEMS, D)), "history_vectors": rng.normal(size=(ITEMS, D)),
        "item_terms": rng.normal(size=ITEMS), "item_features": rng.normal(size=(ITEMS, 2)),
    }  # fmt: skip
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    ids = [f"i{i}" for i in range(ITEMS)]
    groups = features(rng, "price", "age"), features(rng, "years"), features(rng, "hour")
    return Ranker(ids, arrays, 0.3, Rate(0.4, 0.7), *groups)


def scored(ranker: Ranker, past_ids: list[str], candidate_ids: list[str], **given: Any) -> tuple[Past, Candidates]:
    rng = np.random.default_rng(1)
    past_rows, rows = ranker.rows(past_ids), ranker.rows(candidate_ids)
    projections = rng.normal(size=(20, ranker.width)).astype(np.float32)
    chosen = [i % 3 != 1 for i in range(len(past_ids))]
    past = ranker.past(
        past_ids, past_rows, projections[: (past_rows < 0).sum()], chosen, [1.0 + i for i in range(len(past_ids))]
    )
    given_features = given.get("features", [{} for _ in candidate_ids])
    return past, ranker.candidates(candidate_ids, rows, projections[10:][: (rows < 0).sum()], given_features)


@pytest.mark.parametrize("past_ids", [[], ["i0"], ["i0", "i1", "new", "i4", "other"]])
def test_the_contributions_of_a_candidate_add_up_to_its_logit(past_ids: list[str]) -> None:
    model = ranker()
    # i4 and new are in the history too, and are scored without themselves
    past, candidates = scored(model, past_ids, ["i2", "i4", "new", "unknown"])
    user, context = {"years": 3.0}, {"hour": 21.0}
    logits = model.logits(past, candidates, user, context)
    assert model.contributions(past, candidates, user, context).logits == pytest.approx(logits, abs=1e-5)
    assert np.isfinite(logits).all()


def test_an_item_does_not_speak_for_itself() -> None:
    model = ranker()
    with_itself, without = scored(model, ["i0", "i1", "i4"], ["i4"]), scored(model, ["i0", "i1"], ["i4"])
    assert model.logits(*with_itself, {}, {}) == pytest.approx(model.logits(*without, {}, {}), abs=1e-5)
    assert model.contributions(*with_itself, {}, {}).history[0, 2] == 0.0


def test_a_known_item_has_the_features_of_training_unless_others_are_given() -> None:
    model = ranker()
    _, as_trained = scored(model, [], ["i0"])
    assert as_trained.features[0] == pytest.approx(model.arrays["item_features"][0])
    _, given = scored(model, [], ["i0"], features=[{"price": 0.0, "unheard of": 9.0}])
    assert given.features[0].tolist() == pytest.approx([0.0, model.arrays["item_features"][0, 1]])


def test_features_that_the_model_does_not_know_change_nothing() -> None:
    model = ranker()
    past, candidates = scored(model, ["i0"], ["i1", "i2"])
    plain = model.logits(past, candidates, {}, {})
    assert model.logits(past, candidates, {"unheard of": 1e9}, {"also": -3.0}).tolist() == plain.tolist()


def test_features_are_bounded() -> None:
    model = ranker()
    past, candidates = scored(model, ["i0"], ["i1"])
    largest = model.logits(past, candidates, {"years": 1e300}, {})
    assert largest.tolist() == model.logits(past, candidates, {"years": 1e200}, {}).tolist()


def test_the_rate_is_neutral_without_a_history_and_rises_with_what_was_chosen() -> None:
    rate = Rate(0.3, 1.0)
    assert rate.term(np.zeros(0, bool)) == pytest.approx(0.0)
    assert rate.term(np.array([True] * 5)) > 0 > rate.term(np.array([False] * 5))


def test_arrays_of_another_shape_are_refused() -> None:
    model = ranker()
    arrays = {**model.arrays, "item_terms": model.arrays["item_terms"][1:]}
    with pytest.raises(ValueError, match="item_terms"):
        Ranker([f"i{i}" for i in range(ITEMS)], arrays, 0.0, model.rate, model.item, model.user, model.context)


def test_probability_of_extreme_logits_are_numbers() -> None:
    assert probability(np.array([-1e4, 0.0, 1e4])).tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_columns_of_features_count_as_requests_with_the_same_numbers() -> None:
    own = features(np.random.default_rng(0), "hour", "day")
    columns = own.columns(["year", "hour"], np.array([[2000.0, 7.0], [2001.0, np.nan]]))
    assert (columns == own.values([{"year": 2000.0, "hour": 7.0}, {"year": 2001.0}])).all()
