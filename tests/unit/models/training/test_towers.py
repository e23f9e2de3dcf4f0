"""Towers: what they learn from a small world, and that numpy serves what torch has trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.evaluation.metrics import ranker_metrics
from models.tasks.ranker import Candidates, Past
from models.training.fit_ranker import _mixed, _replayed, _without
from models.training.tower_checkpoint import TrainedTowers, text_key
from models.training.tower_examples import Examples, Scalings, history_of, newest
from models.training.towers import (
    Batches,
    Towers,
    TowerSettings,
    epochs_for,
    fit_towers,
    logits_of,
    towers_from,
)

SETTINGS = TowerSettings(dimensions=4, members=2, min_batch_events=128, max_epochs=6)


def world(users: int = 60, items: int = 30, hidden: int = 6) -> Examples:
    """Users of two tastes choose items of their taste; which taste an item is of, its text says with some noise."""
    rng = np.random.default_rng(3)
    taste_of_user, taste_of_item = rng.integers(0, 2, users), np.arange(items) % 2
    user = np.repeat(np.arange(users), 12)
    item = np.concatenate([rng.permutation(items)[:12] for _ in range(users)])
    chosen = (taste_of_user[user] == taste_of_item[item]) ^ (rng.random(len(user)) < 0.1)
    texts = rng.normal(size=(items, hidden)) * 0.3
    texts[:, 0] += np.where(taste_of_item, 1.0, -1.0)
    n = len(user)
    return Examples(
        user, item, chosen, np.ones(n, np.float32), np.ones(n, bool), np.ones(n, bool), texts.astype(np.float32),
        rng.normal(size=(items, 2)).astype(np.float32), rng.normal(size=(users, 1)).astype(np.float32),
        rng.normal(size=(n, 1)).astype(np.float32),
    )  # fmt: skip


def trained(examples: Examples, members: list[Towers]) -> TrainedTowers:
    names = {"item": ["price", "age"], "user": ["years"], "context": ["hour"]}
    scaling = [(np.zeros(k), np.ones(k)) for k in (2, 1, 1)]
    states = [_without(member, np.zeros(examples.items, bool)) for member in members]
    items = [f"i{i}" for i in range(examples.items)]
    return TrainedTowers(
        states, items, examples.item_features, names, Scalings(*scaling), np.zeros(6, np.float32), 1.0, examples.texts,
        [text_key(name) for name in items],
    )  # fmt: skip


def no_progress(done: int, total: int) -> None:
    pass


def test_towers_learn_tastes_and_choose_their_epochs() -> None:
    examples = world()
    validation = newest(examples.user, 0.25)
    settings = TowerSettings(dimensions=4, members=2, min_batch_events=64, max_epochs=40, learning_rate=0.02)
    epochs = epochs_for(examples, validation, settings, no_progress)
    assert 1 <= epochs <= settings.max_epochs
    past, judged = examples.only(~validation), examples.only(validation)
    members, losses = fit_towers(past, epochs, settings, no_progress)
    assert losses[-1][1] < losses[0][1]
    batches = Batches(judged, history_of(past), 1000)
    logits = np.mean([logits_of(member, batches, len(judged.user)) for member in members], axis=0)
    assert ranker_metrics(judged.user, judged.chosen, logits)["user_auc"] > 0.75


def test_numpy_serves_what_torch_has_trained(tmp_path: Path) -> None:
    """The mean of the members' logits, each event scored without itself, from a checkpoint read again."""
    examples = world()
    members, _ = fit_towers(examples, 2, SETTINGS, no_progress)
    batches = Batches(examples, history_of(examples), 100)
    expected = np.mean([logits_of(member, batches, len(examples.user)) for member in members], axis=0)
    trained(examples, members).save(tmp_path)
    found = TrainedTowers.load(tmp_path)
    ranker = found.ranker()
    rows = np.arange(examples.items)
    items = ranker.candidates(rows.tolist(), rows, np.zeros((0, ranker.width), np.float32), [{}] * examples.items)
    history = history_of(examples)
    for user in range(5):
        own = slice(*history.starts[user : user + 2])
        seen = history.item[own]
        past = Past(ranker.arrays["history_vectors"][seen], history.chosen[own], history.weight[own], seen.tolist())
        for at in np.flatnonzero(examples.user == user):
            one = examples.item[[at]]
            candidate = Candidates(items.vectors[one], items.terms[one], items.features[one], one.tolist())
            # What a request gives is compressed and scaled; these features are standardized already.
            logit = ranker.logits(past, candidate, {}, {})[0]
            logit += examples.user_features[user] @ ranker.user.weights
            logit += examples.user_features[user] @ ranker.user.vectors @ candidate.vectors[0]
            logit += examples.context_features[at] @ ranker.context.weights
            logit += examples.context_features[at] @ ranker.context.vectors @ candidate.vectors[0]
            assert logit == pytest.approx(expected[at], abs=2e-3)  # texts are kept in half precision


def test_a_new_item_is_read_by_projections_of_its_own() -> None:
    """An item without an event is described by its text, alike as one of the version and as one that it never saw."""
    examples = world()
    unseen = examples.item == 4
    judged = examples.only(unseen)
    members, _ = fit_towers(examples.only(~unseen), 6, SETTINGS, no_progress)
    history = history_of(examples.only(~unseen))
    logits = np.mean([logits_of(member, Batches(judged, history, 100), unseen.sum()) for member in members], axis=0)
    taste = np.array(
        [np.mean((examples.item[rows] % 2)[examples.chosen[rows]]) for rows in judged.user[:, None] == examples.user]
    )
    assert np.corrcoef(taste, logits)[0, 1] < -0.3  # item 4 is of taste 0
    found = trained(examples, members)
    weight, bias = found.head()
    as_new = (examples.texts @ weight.T + bias)[[4]]
    ranker = found.ranker()
    d = ranker.dimensions
    assert ranker.arrays["item_vectors"][4] == pytest.approx(as_new[0, :d], abs=1e-5)
    assert ranker.arrays["item_terms"][4] == pytest.approx(as_new[0, 2 * d], abs=1e-5)
    assert ranker.arrays["item_vectors"][5] != pytest.approx((examples.texts @ weight.T + bias)[5, :d], abs=1e-5)


def test_logits_do_not_depend_on_the_batches() -> None:
    examples = world()
    towers = fit_towers(examples, 1, SETTINGS, no_progress)[0][0]
    alone, together = (
        logits_of(towers, Batches(examples, history_of(examples), size), len(examples.user)) for size in (1, 10_000)
    )
    assert alone == pytest.approx(together, abs=1e-5)


def test_sampled_events_and_the_holdout_are_no_history() -> None:
    examples = world()._replace(past=np.arange(60 * 12) % 12 < 5)
    history = history_of(examples)
    assert len(history.item) == 60 * 5
    own = history.rows_of(examples.user, examples.item, examples.items)
    assert ((own >= 0) == examples.past).all()


def test_an_item_that_was_seen_and_chosen_is_chosen_with_its_heaviest_weight() -> None:
    examples = (
        world(users=1)
        .only(np.arange(3))
        ._replace(
            item=np.array([2, 2, 2]), chosen=np.array([False, True, True]), weight=np.array([9.0, 1.0, 3.0], np.float32)
        )
    )
    history = history_of(examples)
    assert (history.item.tolist(), history.chosen.tolist(), history.weight.tolist()) == ([2], [True], [3.0])


def test_an_item_that_was_rated_and_clicked_is_scored_without_either() -> None:
    once = world()
    towers = fit_towers(once, 1, SETTINGS, no_progress)[0][0]
    rows = np.repeat(np.arange(len(once.user)), 2)
    second = np.arange(len(rows)) % 2 == 1
    twice = once.only(rows)
    twice = twice._replace(chosen=twice.chosen ^ second, weight=twice.weight + np.float32(2) * second)
    logits = logits_of(towers, Batches(twice, history_of(twice), 100), len(rows))
    for at in (0, 1, 25):
        of_item = (twice.user == twice.user[at]) & (twice.item == twice.item[at])
        others = history_of(twice._replace(past=twice.past & ~of_item))
        assert logits_of(towers, Batches(twice, others, 100), len(rows))[at] == pytest.approx(logits[at], abs=1e-5)


def test_a_continued_training_keeps_what_it_does_not_see() -> None:
    examples = world()
    before = [_without(member, np.zeros(30, bool)) for member in fit_towers(examples, 2, SETTINGS, no_progress)[0]]
    rows = np.r_[np.arange(29), -1]  # the last item is new
    start = [towers_from(state, rows) for state in before]
    assert (start[0].item_ids[29] == 0).all()
    assert start[0].item_bias[29] == 0
    new = np.zeros(len(examples.user), bool)
    new[:12] = True
    part = examples.only((examples.user == 0) & (examples.item != 5))
    after = fit_towers(part, 2, SETTINGS, no_progress, start)[0]
    seen = np.bincount(part.item, minlength=30) > 0
    state = _mixed(after[0], towers_from(before[0], rows), seen)
    assert (state["item_ids"][5] == before[0]["item_ids"][5]).all()
    learned = np.flatnonzero(seen[:29])
    assert not (state["item_ids"][learned] == before[0]["item_ids"][learned]).all()


def test_users_with_new_events_are_replayed_whole() -> None:
    examples = world()
    new = np.zeros(len(examples.user), bool)
    new[-1] = True
    assert _replayed(examples, new, 0)[examples.user == 59].all()


def test_the_newest_share_is_of_each_user() -> None:
    assert (
        newest(np.array([0] * 10 + [1] * 5 + [2]), 0.2).tolist() == [False] * 8 + [True] * 2 + [False] * 4 + [True] * 2
    )
