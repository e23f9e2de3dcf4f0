"""Re-ranking: what diversity does, and that items are drawn with the propensities that are stated."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from models.tasks.ranking_policy import rank, step_probabilities

LOGITS = np.array([1.5, 0.2, -0.4, 0.9])
VECTORS = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.9, 0.1]])
DRAWS = 20_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_options_the_order_is_that_of_the_logits_and_equal_ones_stay_in_place() -> None:
    ranked = rank(np.array([0.0, 1.0, 1.0, 2.0]), VECTORS, 9, rng=rng())
    assert ranked.order.tolist() == [3, 1, 2, 0]
    assert ranked.propensities is None


@pytest.mark.parametrize("diversity", [0.0, 0.5])
@pytest.mark.parametrize("explore", [0.2, 0.5, 1.0])
def test_draws_have_the_stated_propensities(diversity: float, explore: float) -> None:
    """Each order of the first two appears as often as the product of its propensities says."""
    draw, counts, stated = rng(), Counter[tuple[int, ...]](), dict[tuple[int, ...], float]()
    for _ in range(DRAWS):
        ranked = rank(LOGITS, VECTORS, 2, diversity=diversity, explore=explore, rng=draw)
        order = tuple(ranked.order.tolist())
        counts[order] += 1
        assert ranked.propensities is not None
        stated[order] = float(np.prod(ranked.propensities))
    for order in permutations(range(4), 2):
        rows = step_probabilities(LOGITS, VECTORS, np.array(order), diversity=diversity, explore=explore)
        expected = float(rows[0, order[0]] * rows[1, order[1]])
        if order in stated:
            assert stated[order] == pytest.approx(expected, rel=1e-9)
        error = np.sqrt(expected * (1 - expected) / DRAWS)
        assert counts[order] / DRAWS == pytest.approx(expected, abs=4 * error + 3 / DRAWS), order


def test_at_one_half_the_first_item_is_drawn_by_its_odds_and_at_one_all_orders_are_equal() -> None:
    first = step_probabilities(LOGITS, VECTORS, np.array([0]), explore=0.5)[0]
    odds = np.exp(LOGITS)
    assert first == pytest.approx(odds / odds.sum())
    assert step_probabilities(LOGITS, VECTORS, np.array([2, 0]), explore=1.0).tolist() == [
        [0.25] * 4,
        [1 / 3, 1 / 3, 0, 1 / 3],
    ]


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0])
def test_the_less_is_explored_the_nearer_is_the_ranking_without_chance(diversity: float) -> None:
    certain = rank(LOGITS, VECTORS, 4, diversity=diversity, rng=rng())
    for explore in (1e-320, 1e-12, 0.005):
        ranked = rank(LOGITS, VECTORS, 4, diversity=diversity, explore=explore, rng=rng())
        assert ranked.order.tolist() == certain.order.tolist()
        assert ranked.propensities is not None
        assert ranked.propensities == pytest.approx(1.0, abs=1e-6)
    rows = step_probabilities(LOGITS, VECTORS, certain.order, diversity=diversity)
    assert rows[np.arange(4), certain.order].tolist() == [1.0] * 4


def test_diversity_is_marginal_relevance() -> None:
    """Against its definition, in another form: (1 - diversity) * relevance - diversity * likeness."""
    draw = rng(3)
    logits, vectors = draw.normal(size=30), draw.normal(size=(30, 5))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for diversity in (0.1, 0.5, 0.9):
        placed = [int(logits.argmax())]
        while len(placed) < 10:
            likeness = (units @ units[placed].T).max(1)
            value = (1 - diversity) * logits / logits.std() - diversity * likeness
            value[placed] = -np.inf
            placed.append(int(value.argmax()))
        assert rank(logits, vectors, 10, diversity=diversity, rng=rng()).order.tolist() == placed


def test_more_diversity_is_less_alike_and_the_best_item_stays_first() -> None:
    """Of three kinds of items, of which the user likes one best."""
    draw = rng(5)
    kinds = np.arange(90) % 3
    logits = draw.normal(size=90) * 0.3 + np.array([1.0, 0.0, -0.5])[kinds]
    vectors = np.eye(3)[kinds] + draw.normal(size=(90, 3)) * 0.2
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike, relevance, shown = [], [], []
    for diversity in (0.0, 0.3, 0.6, 1.0):
        order = rank(logits, vectors, 10, diversity=diversity, rng=rng()).order
        assert order[0] == logits.argmax()
        alike.append(float((units[order] @ units[order].T)[np.triu_indices(10, 1)].mean()))
        relevance.append(float(logits[order].mean()))
        shown.append(len(set(kinds[order].tolist())))
    assert alike == sorted(alike, reverse=True)
    assert relevance == sorted(relevance, reverse=True)
    assert shown[0] < 3 == shown[-1]


def test_a_copy_comes_last_even_where_all_are_equally_relevant() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert rank(np.zeros(3), vectors, 3, diversity=0.1, rng=rng()).order.tolist() == [0, 2, 1]


@pytest.mark.parametrize("count", [0, 1, 100, 1000])
@pytest.mark.parametrize(("diversity", "explore"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.3), (0.5, 0.3), (1.0, 1.0)])
def test_any_number_of_candidates(count: int, diversity: float, explore: float) -> None:
    draw = rng(count)
    logits, vectors = draw.normal(size=count) * 30, draw.normal(size=(count, 32)).astype(np.float32)
    vectors[: count // 2] = 0  # items of which nothing is known
    ranked = rank(logits, vectors, count, diversity=diversity, explore=explore, rng=draw)
    assert sorted(ranked.order.tolist()) == list(range(count))
    assert (ranked.propensities is None) == (explore == 0)
    if ranked.propensities is not None and count:
        assert ((ranked.propensities > 0) & (ranked.propensities <= 1)).all()
        assert ranked.propensities[-1] == pytest.approx(1.0)  # nothing else was left
