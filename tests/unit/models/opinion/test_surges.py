"""Surges in made streams. loadtests/quality/surges.py measures the same properties on many more."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from numpy.typing import NDArray

from models.opinion.surges import SurgeRules, count_tail, find_surges, known_steps, share_tail

WEEK = 168
HISTORY, HOURS = 8 * WEEK, 11 * WEEK
START = 2800 * WEEK * 3600  # a Thursday, midnight UTC
NOON = HISTORY + WEEK + 4 * 24 + 12  # a Monday
TOPICS = 10
Counts = NDArray[np.int64]


def streams(volume: float, share: float, seed: int = 0, hours: int = HOURS) -> tuple[Counts, Counts]:
    """Stories and negative stories of TOPICS topics: days and weekends have a rhythm, and the dispersion is 2."""
    rng = np.random.default_rng(seed)
    at = np.arange(hours)
    weekday = (at // 24 + 3) % 7 < 5
    rhythm = np.where(weekday, 1.3, 0.35) * (1 + 0.8 * np.sin((at % 24 - 7) / 24 * 2 * np.pi))
    stories = rng.poisson(rng.gamma(np.broadcast_to(volume * rhythm, (TOPICS, hours)) + 1e-9))
    return stories, rng.binomial(stories, share)


def add(counts: tuple[Counts, Counts], at: int, hours: int, negative: int, others: int = 0) -> None:
    counts[1][:, at : at + hours] += negative
    counts[0][:, at : at + hours] += negative + others


@pytest.mark.parametrize(("volume", "share"), [(0.2, 0.5), (5, 0.05), (20, 0.2), (200, 0.5)])
def test_quiet_streams_have_few_false_alarms(volume: float, share: float) -> None:
    found = find_surges(*streams(volume, share), START, since=HISTORY)
    months = TOPICS * (HOURS - HISTORY) / 24 / 30.4
    assert len(found) / months <= 1


@pytest.mark.parametrize("at", [NOON, NOON + 5 * 24, NOON + 13])
def test_a_tenfold_surge_is_found_at_once_and_ends(at: int) -> None:
    """At noon of a Monday, on a Saturday, and at night."""
    counts = streams(20, 0.2)
    usual = int(counts[1][:, at - 8 * WEEK : at : WEEK].mean()) + 1
    add(counts, at, 6, 10 * usual)
    found = [s for s in find_surges(*counts, START, since=HISTORY) if abs((s.started - START) // 3600 - at) <= 2]
    hours = [(surge.found - START) // 3600 - at for surge in found]
    assert len({surge.topic for surge in found}) == TOPICS
    assert np.mean(np.array(hours) <= 1) >= 0.95
    for surge in found:
        assert surge.ended is not None
        assert 5 <= (surge.ended - START) // 3600 - at <= 13
        assert surge.observed >= 60 * usual
        assert surge.expected < surge.observed / 4
        assert surge.score > 4


def test_a_rise_that_keeps_its_mood_is_no_surge() -> None:
    stories, negative = streams(20, 0.2)
    rng = np.random.default_rng(1)
    risen = rng.poisson(200, (TOPICS, 12))
    stories[:, NOON : NOON + 12] += risen
    negative[:, NOON : NOON + 12] += rng.binomial(risen, 0.2)
    found = find_surges(stories, negative, START, since=NOON)
    assert len([s for s in found if s.started < START + (NOON + 14) * 3600]) <= 1


def test_fewer_than_five_stories_are_no_surge() -> None:
    nothing = np.zeros((1, HOURS), np.int64)
    for stories, surges in ((4, 0), (9, 1)):
        counts = nothing.copy(), nothing.copy()
        add(counts, NOON, 1, stories)
        assert len(find_surges(*counts, START, since=HISTORY)) == surges


def test_own_surges_in_the_history_hide_no_new_one_and_raise_no_false_one() -> None:
    counts = streams(20, 0.2)
    for week in (1, 2, 4):
        add(counts, NOON - week * WEEK, 8, 60)
    quiet = find_surges(*counts, START, since=NOON - 24)
    assert len([surge for surge in quiet if surge.started >= START + NOON * 3600]) <= 1
    add(counts, NOON, 2, 60)
    found = {surge.topic for surge in find_surges(*counts, START, since=NOON - 24)}
    assert len(found) >= 0.95 * TOPICS


def test_a_slow_drift_of_volume_is_no_surge() -> None:
    stories, _ = streams(20, 0.2)
    rng = np.random.default_rng(2)
    drifted = rng.poisson(stories * 4 ** np.linspace(0, 1, HOURS))
    found = find_surges(drifted, rng.binomial(drifted, 0.2), START, since=HISTORY)
    assert len(found) / (TOPICS * (HOURS - HISTORY) / 24 / 30.4) <= 1


def test_a_new_level_is_learned_within_a_week() -> None:
    counts = streams(20, 0.2)
    add(counts, NOON, HOURS - NOON, 20)
    found = find_surges(*counts, START, since=NOON)
    assert {surge.topic for surge in found} == set(range(TOPICS))
    week_later = START + (NOON + WEEK) * 3600
    assert all(surge.ended is not None and surge.ended < week_later for surge in found if surge.started < week_later)


def test_the_newest_steps_alone_give_the_same_surges() -> None:
    """As the server looks: at the newest steps, with eight weeks before their day."""
    counts = streams(20, 0.2)
    add(counts, NOON, 6, 40)
    whole = find_surges(*counts, START)
    for since in (NOON - 30, NOON):
        cut = since - since % 24 - HISTORY
        newest = find_surges(*(c[:, cut:] for c in counts), START + cut * 3600, since=since - cut)
        same = [surge for surge in whole if surge.started >= START + since * 3600]
        assert [astuple(s)[:5] for s in newest] == [astuple(s)[:5] for s in same]
        assert [s.expected for s in newest] == pytest.approx([s.expected for s in same], rel=1e-4)


def test_a_running_step_begins_a_surge_and_ends_none() -> None:
    counts = streams(20, 0.2)
    add(counts, NOON, 4, 60)
    for end, ended in ((NOON + 1, False), (NOON + 5, False), (NOON + 6, False), (NOON + 8, True)):
        parts = [c[:, :end].copy() for c in counts]
        found = find_surges(*parts, START, since=NOON - 1, running=True)
        assert {surge.topic for surge in found} == set(range(TOPICS))
        assert all((surge.ended is not None) == ended for surge in found[:1])


def test_a_server_that_was_off_is_told_from_silence() -> None:
    stories, negative = streams(20, 0.2)
    total = stories.sum(0)
    gap = slice(NOON - 2 * WEEK, NOON - 2 * WEEK + 72)
    stories[:, gap] = negative[:, gap] = total[gap] = 0
    total[:5] = 0
    total[NOON + 13] = 0  # an hour of the night
    known = known_steps(total, START)
    assert not known[gap].any()
    assert not known[:5].any()
    assert known.sum() >= HOURS - 72 - 5 - 1
    quiet_feed = np.where(np.arange(HOURS) % 3 == 0, 1, 0)
    assert known_steps(quiet_feed, START).all()
    assert not known_steps(np.zeros(HOURS, np.int64), START).any()
    months = TOPICS * 2 * WEEK / 24 / 30.4
    assert len(find_surges(stories, negative, START, since=NOON, known=known)) / months <= 1


def test_a_topic_without_history_alarms_after_two_days() -> None:
    counts = streams(20, 0.2, hours=WEEK)
    add(counts, 30, 3, 100)
    assert not [s for s in find_surges(*counts, START) if s.started < START + 36 * 3600]
    add(counts, 80, 3, 100)
    assert len({s.topic for s in find_surges(*counts, START) if s.started >= START + 78 * 3600}) == TOPICS


@pytest.mark.parametrize("step_s", [900, 86_400])
def test_other_steps(step_s: int) -> None:
    rules = SurgeRules(step_s=step_s)
    rng = np.random.default_rng(3)
    stories = rng.poisson(20, (5, 10 * 7 * rules.steps_per_day))
    negative = rng.binomial(stories, 0.2)
    add((stories, negative), stories.shape[1] - 3, 2, 60)
    found = find_surges(stories, negative, START, rules, since=stories.shape[1] - 10)
    assert {surge.topic for surge in found} == set(range(5))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="divide a day"):
        SurgeRules(step_s=7 * 3600)
    with pytest.raises(ValueError, match="topics, steps"):
        find_surges(np.zeros((1, 5), int), np.zeros((1, 6), int), START)
    with pytest.raises(ValueError, match="multiple of 3600"):
        find_surges(np.zeros((1, 5), int), np.zeros((1, 5), int), START + 1)
    assert find_surges(np.zeros((0, 5), int), np.zeros((0, 5), int), START) == []
    assert find_surges(np.zeros((2, 0), int), np.zeros((2, 0), int), START) == []


def test_all_figures_are_finite() -> None:
    """Of a topic of bad news only, and of one that had none before a surge whose tail is 0 in floating point."""
    stories = np.random.default_rng(0).poisson(5, (2, HOURS))
    negative = stories * np.array([[1], [0]])
    add((stories, negative), NOON, 3, 100_000)
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        found = find_surges(stories, negative, START, since=HISTORY)
    [surge] = [surge for surge in found if surge.topic == 1]
    assert surge.score == pytest.approx(300)
    assert np.isfinite(surge.expected)


def test_tails_are_those_of_scipy() -> None:
    from scipy.stats import binom, nbinom, poisson

    for found, mean, dispersion in ((9, 2.0, 1.5), (30, 10.0, 3.0)):
        exact = nbinom.sf(found - 1, mean / (dispersion - 1), 1 / dispersion)
        assert count_tail(*(np.array([v]) for v in (found, mean, mean * dispersion)))[0] == pytest.approx(exact)
    assert count_tail(np.array([9]), np.array([2.0]), np.array([2.0]))[0] == pytest.approx(poisson.sf(8, 2), rel=0.05)
    assert share_tail(*(np.array([v]) for v in (9, 20, 0.3, 1.0)))[0] == pytest.approx(binom.sf(8, 20, 0.3))
