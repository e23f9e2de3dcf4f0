"""Estimates of a policy's value from another's rankings, on a simulation whose truth is known."""

from __future__ import annotations

from dataclasses import astuple, replace
from itertools import permutations

import numpy as np
import pytest

from models.evaluation.off_policy import Estimate, JudgedRanking, TooFewError, discounts, estimate
from models.tasks.ranking_policy import rank, step_probabilities

ITEMS, POSITIONS, USERS, ANSWERS = 6, 3, 60, 6
NO_VECTORS = np.zeros((ITEMS, 0))
FATIGUE = 0.5  # a chosen item makes every later one so much less likely: position alone would not explain the choices


class World:
    """Kinds of users with tastes; a version that shows, and one to be judged, read these each with its own errors."""

    def __init__(self, seed: int):
        draw = np.random.default_rng(seed)
        self.tastes = 2.0 * draw.normal(size=(USERS, ITEMS))
        self.shown = 0.4 * draw.normal(size=self.tastes.shape)
        self.judged = 0.4 * self.tastes + 0.2 * draw.normal(size=self.tastes.shape)

    def chances(self, user: int, order: tuple[int, ...]) -> np.ndarray:
        """(positions,): the mean of whether each item is chosen, over all courses that the choices above can take."""
        courses = {0: 1.0}  # number of items chosen so far -> probability
        means = []
        for item in order:
            plain = 1 / (1 + np.exp(0.5 - self.tastes[user, item]))
            means.append(sum(p * plain * FATIGUE**n for n, p in courses.items()))
            after: dict[int, float] = {}
            for n, p in courses.items():
                chance = plain * FATIGUE**n
                after[n] = after.get(n, 0.0) + p * (1 - chance)
                after[n + 1] = after.get(n + 1, 0.0) + p * chance
            courses = after
        return np.array(means)

    def value(self, logits: np.ndarray, explore: float) -> float:
        """The true value, summed over every order that can be shown."""
        total = 0.0
        for user in range(USERS):
            for order in permutations(range(ITEMS), POSITIONS):
                rows = step_probabilities(logits[user], NO_VECTORS, np.array(order), explore=explore)
                probability = np.prod(rows[np.arange(POSITIONS), order])
                total += probability * (self.chances(user, order) @ discounts(POSITIONS)) / USERS
        return float(total)

    def log(self, draw: np.random.Generator, explore: float) -> list[JudgedRanking]:
        """Answers to so many users, each of a kind drawn at random."""
        rankings = []
        for name, user in enumerate(draw.integers(USERS, size=USERS)):
            for _ in range(ANSWERS):
                order, propensities = rank(self.shown[user], NO_VECTORS, POSITIONS, explore=explore, rng=draw)
                assert propensities is not None
                chosen = np.zeros(POSITIONS, np.bool_)
                for k, item in enumerate(order):
                    plain = 1 / (1 + np.exp(0.5 - self.tastes[user, item]))
                    chosen[k] = draw.random() < plain * FATIGUE ** chosen.sum()
                judged = self.judged[user]
                probabilities = step_probabilities(judged, NO_VECTORS, order, explore=explore)
                rankings.append(
                    JudgedRanking(f"{name} of kind {user}", chosen, propensities, order, judged, probabilities)
                )
        return rankings


@pytest.fixture(scope="module")
def world() -> World:
    return World(1)


def covers(found: Estimate, truth: float) -> bool:
    return found.low <= truth <= found.high


def test_intervals_cover_the_truth(world: World) -> None:
    """Nominally 95 of 100 do. That of the logged value, which is the other version's, never does."""
    truth, logged_truth = world.value(world.judged, 0.5), world.value(world.shown, 0.5)
    draw, covered, errors, runs = np.random.default_rng(2), [], [], 60
    for _ in range(runs):
        found = estimate(world.log(draw, 0.5), POSITIONS, resamples=200)
        covered.append(
            [
                covers(found.snips, truth),
                covers(found.doubly_robust, truth),
                covers(found.difference, truth - logged_truth),
                covers(found.logged, logged_truth),
                covers(found.logged, truth),
            ]
        )
        errors.append([found.snips.value - truth, found.doubly_robust.value - truth])
    rates = np.mean(covered, axis=0)
    assert (rates[:4] >= 0.85).all(), rates
    assert rates[4] == 0
    bias, standard_error = np.mean(errors, axis=0), np.std(errors, axis=0) / np.sqrt(runs)
    assert (np.abs(bias) < 3 * standard_error).all(), (bias, standard_error)


def test_a_model_of_the_gains_that_knows_nothing_makes_no_estimate_wrong(world: World) -> None:
    truth, draw, covered = world.value(world.judged, 0.5), np.random.default_rng(3), 0
    for _ in range(20):
        blind = [replace(ranking, logits=draw.normal(size=ITEMS)) for ranking in world.log(draw, 0.5)]
        covered += covers(estimate(blind, POSITIONS, resamples=200).doubly_robust, truth)
    assert covered >= 17


def test_the_policy_that_was_shown_has_the_value_that_was_logged(world: World) -> None:
    log = [replace(r, logits=world.shown[int(r.user.split()[-1])]) for r in world.log(np.random.default_rng(4), 0.5)]
    log = [replace(r, probabilities=step_probabilities(r.logits, NO_VECTORS, r.order, explore=0.5)) for r in log]
    found = estimate(log, POSITIONS)
    assert astuple(found.snips) == pytest.approx(astuple(found.logged))
    assert found.effective == pytest.approx([len(log)] * POSITIONS)
    assert found.doubly_robust.value == pytest.approx(found.logged.value, rel=0.1)
    assert found.difference.low < 0 < found.difference.high
    assert (found.answers, found.users) == (USERS * ANSWERS, USERS)


def test_answers_of_other_lengths(world: World) -> None:
    log = world.log(np.random.default_rng(5), 0.5)
    cut = [
        replace(r, chosen=r.chosen[:1], propensities=r.propensities[:1], order=r.order[:1]) if i % 2 else r
        for i, r in enumerate(log)
    ]
    assert estimate(cut, 1) == estimate(log, 1)
    assert estimate(cut, POSITIONS).logged.value < estimate(log, POSITIONS).logged.value


def test_what_cannot_be_told_is_said(world: World) -> None:
    log = world.log(np.random.default_rng(6), 0.5)
    with pytest.raises(TooFewError, match=r"99 answers to 17 users have propensities; .* \"explore\" above 0"):
        estimate(log[:99], POSITIONS)
    with pytest.raises(TooFewError, match="360 answers to 1 users"):
        estimate([replace(r, user="one") for r in log], POSITIONS)
    with pytest.raises(TooFewError, match="no user chose one of the first 3 items of the 360 answers"):
        estimate([replace(r, chosen=np.zeros(POSITIONS, np.bool_)) for r in log], POSITIONS)
    opposite = world.log(np.random.default_rng(7), 0.1)  # almost always the version's own order
    far = [
        replace(r, probabilities=step_probabilities(-9 * r.logits, NO_VECTORS, r.order, explore=0.5)) for r in opposite
    ]
    with pytest.raises(TooFewError, match=r"as much about position \d as \d+ of the version's own .* Judge fewer"):
        estimate(far, POSITIONS)
