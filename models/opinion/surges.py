"""Surges of negative stories over a topic's own baseline: counts by step in, surges out.

The method is that of Noufaily et al. (2013, Statistics in Medicine 32, 1206, https://doi.org/10.1002/sim.5595; the
"flexible Farrington" of outbreak surveillance), for hours instead of weeks:

1. For each day, a baseline from the eight weeks before it: the topic's mean by hour of the week, in which past surges
   are weighted down by their Anscombe residuals, and a level, the median of the last seven days over that mean.
2. The tail of a negative-binomial distribution for the count of the last 1, 2 or 6 steps. Its variance has the
   dispersion of the baseline and the error of the estimated mean, so that a short history gives a wide tail.
3. The share of negative stories must be above its own baseline too, so that a rise that keeps its mood is no surge.

Hours of the week are in UTC: a change to summer time moves a topic's rhythm by an hour, which the baseline learns in
some weeks. docs/decisions/0044-surges.md has the alternatives, loadtests/quality/surges.py the measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Counts = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]

_DAY_S = 86_400
_MONTH_DAYS = 30.4
WINDOWS = (1, 2, 6)
"""steps whose counts are tested together: a single step finds a large surge at once, six find a small topic's"""
_OUTLIER = 2.58
"""Anscombe residual from which a past count is weighted down, as in Noufaily et al."""
_RHYTHM_SPREAD = 0.3
"""standard deviation, relative, of an hour of the week around the product of its day's and its hour's mean"""
_MARGIN_SPREAD = 0.5
"""the same, of a day of the week or an hour of the day around the topic's mean"""
_SHARE_SPREAD = 0.1
"""the same, of the share of negative stories, by hour of the week and from one week to another"""
_LEVEL_STORIES = 20.0
"""stories a week at which the level of the last seven days counts as much as that of the eight weeks"""
_PRIOR_SHARE = 1 / 3
"""of negative stories, for a topic without any: it counts as one story"""
_MIN_SHARE = 1e-6
"""of negative stories, and of the others: a topic without either would divide by zero"""
_LASTING_SIGNIFICANCE = 0.05
"""tail probability of the share of negative stories in the longest window, or when the others have not risen"""
_RISEN_SIGNIFICANCE = 0.1
"""tail probability of the other stories, below which they have risen, too"""
_MIN_EXPECTED_OF_GAP = 20.0
_TINY = 1e-300
_CHUNK = 50


@dataclass(frozen=True)
class SurgeRules:
    """What counts as a surge. Raises ValueError for a step that does not divide a day."""

    step_s: int = 3600
    false_alarms_per_month: float = 1.0
    """bound for each topic: the tail probability of an alarm is this divided by the tests in a month"""
    min_stories: int = 5
    """negative stories that a surge has at least"""
    min_ratio: float = 1.5
    """observed over expected negative stories, and the same over that of the other stories: a busy topic's rise by a
    tenth is significant, and nothing to wake somebody for"""
    share_significance: float = 0.002
    """tail probability of the share of negative stories, given how many stories there were"""
    weeks: int = 8
    """length of the baseline"""
    min_days: float = 2.0
    """days of history before which a topic has no surges"""

    def __post_init__(self) -> None:
        if self.step_s < 900 or _DAY_S % self.step_s:
            raise ValueError(f"A step must divide a day and take at least 15 minutes, not {self.step_s} s.")

    @property
    def steps_per_day(self) -> int:
        return _DAY_S // self.step_s

    @property
    def significance(self) -> float:
        """Tail probability below which a window of steps is above the baseline."""
        return self.false_alarms_per_month / (_MONTH_DAYS * self.steps_per_day * len(WINDOWS))


@dataclass(frozen=True)
class Surge:
    """One surge of one topic, or one that is under way."""

    topic: int
    """row of the counts"""
    started: int
    """epoch seconds: start of its first step"""
    ended: int | None
    """epoch seconds: end of its last step; None while it is under way"""
    found: int
    """epoch seconds: start of the step with whose count it was found"""
    observed: int
    """negative stories from its first to its last step"""
    expected: float
    """what the baseline expects in these steps"""
    score: float
    """-log10 of the smallest tail probability of its steps"""


@dataclass(frozen=True)
class Baseline:
    """What is expected in each step. All arrays are (topics, steps)."""

    negative: Floats
    share: Floats
    """of negative stories in all, above 0 and below 1"""
    dispersion: Floats
    """variance over mean of the negative stories, 1 or more"""
    error: Floats
    """standard deviation of the expected negative stories"""
    share_dispersion: Floats
    """variance of the negative stories given all stories, over the binomial's, 1 or more"""
    ready: Flags
    """whether the history is long enough"""


def find_surges(
    stories: Counts,
    negative: Counts,
    start: int,
    rules: SurgeRules | None = None,
    *,
    known: Flags | None = None,
    since: int = 0,
    running: bool = False,
) -> list[Surge]:
    """Find the surges of negative stories that touch the steps from `since` on, ordered by start.

    Only steps from `since` on are tested, those before are history: the result for a step depends on nothing but the
    `rules.weeks` weeks before its day. Give the first step of the oldest surge that is under way, and at least the
    newest eight steps, so that a surge that six steps show together begins where it began.

    Parameters
    - `stories`, `negative`: (topics, steps) all stories and negative stories
    - `start`: epoch seconds of the first step, a multiple of `rules.step_s`
    - `known`: (steps,) or (topics, steps) whether a step was observed, see `known_steps`; the default is all
    - `since`: index of the first step that is tested
    - `running`: whether the last step is not over. It can begin or go on with a surge, but not end one.

    Raises ValueError when the shapes do not fit, or `start` is not a multiple of the step.
    """
    rules = rules or SurgeRules()
    stories, negative = np.asarray(stories), np.asarray(negative)
    if stories.ndim != 2 or stories.shape != negative.shape:
        raise ValueError(f"Counts must be (topics, steps) twice, not {stories.shape} and {negative.shape}.")
    if start % rules.step_s:
        raise ValueError(f"The first step must start at a multiple of {rules.step_s} s, not at {start}.")
    observed = np.ones(stories.shape, bool) if known is None else np.broadcast_to(known, stories.shape)
    since = max(since, 0)
    if not stories.shape[0] or since >= stories.shape[1]:
        return []
    first_tested = max(0, since - max(WINDOWS) + 1)  # windows reach back
    baseline = expected_counts(stories, negative, start, rules, known=observed, since=first_tested)
    above, score, begins = _above(stories, negative, observed, baseline, rules, since)
    surges = []
    for topic in np.flatnonzero(above.any(1)):
        surges += _episodes(
            int(topic), negative[topic, since:], baseline.negative[topic, since - first_tested :],
            observed[topic, since:], above[topic], score[topic], begins[topic],
            start + since * rules.step_s, rules, running,
        )  # fmt: skip
    return sorted(surges, key=lambda surge: (surge.started, surge.topic))


def known_steps(total: Counts, start: int, rules: SurgeRules | None = None) -> Flags:
    """(steps,) Tell the steps in which nothing was observed (a server was off, a feed was down) from quiet ones.

    `total` has the texts of the whole stream, (steps,). Unknown are the steps before the first text, and runs of empty
    steps in which the rhythm of the other weeks expects 20 texts or more.
    """
    rules = rules or SurgeRules()
    total = np.asarray(total, float)
    known = np.ones(len(total), bool)
    if not total.any():
        return ~known
    known[: int(np.flatnonzero(total)[0])] = False
    hour = (start // rules.step_s + np.arange(len(total))) % (7 * rules.steps_per_day)
    # Gaps lower the means: those of the steps that are not empty, times how many should be.
    seen = known & (total > 0)
    counts = np.bincount(hour[seen], minlength=7 * rules.steps_per_day)
    overall = total[known].mean()
    expected = (np.bincount(hour[seen], total[seen], minlength=len(counts)) + overall) / (counts + 1)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], (known & (total == 0)).astype(int), [0]))))
    for begin, end in edges.reshape(-1, 2):
        if expected[hour[begin:end]].sum() >= _MIN_EXPECTED_OF_GAP:
            known[begin:end] = False
    return known


def expected_counts(
    stories: Counts, negative: Counts, start: int, rules: SurgeRules, *, known: Flags, since: int = 0
) -> Baseline:
    """The baseline of the steps from `since` on, each from the weeks before its day (UTC)."""
    # A few topics at a time, whose weeks fit into a core's cache: three times as fast.
    parts = [
        _expected_counts(stories[rows], negative[rows], start, rules, known[rows], since)
        for rows in (slice(first, first + _CHUNK) for first in range(0, len(stories), _CHUNK))
    ]
    return _joined(parts, 0)


def _expected_counts(
    stories: Counts, negative: Counts, start: int, rules: SurgeRules, known: Flags, since: int
) -> Baseline:
    topics, steps = stories.shape
    per_day = rules.steps_per_day
    offset = start // rules.step_s % per_day  # steps of the first day that the arrays do not have
    history = rules.weeks * 7 * per_day

    def padded(counts: NDArray[Any]) -> Floats:
        values = np.zeros((topics, history + offset + steps), np.float32)
        values[:, history + offset :] = np.where(known, counts, 0)
        return values

    arrays = padded(np.ones_like(stories)), padded(stories), padded(negative)
    days: list[Baseline] = []
    for day in range((offset + since) // per_day, (offset + steps - 1) // per_day + 1):
        weeks = min(rules.weeks, max(1, -(-day // 7)))  # those before have no data
        # Day 0 begins at `history` in the padded arrays.
        past = slice(history + (day - 7 * weeks) * per_day, history + day * per_day)
        seen, of, among = (values[:, past].reshape(topics, weeks, 7, per_day) for values in arrays)
        fitted = _fit_day(seen, of, among, rules)
        first = day * per_day - offset
        today = slice(max(first, since) - first, min(first + per_day, steps) - first)
        days.append(Baseline(*(values[:, today] for values in vars(fitted).values())))
    return _joined(days, 1)


def _joined(parts: list[Baseline], axis: int) -> Baseline:
    return Baseline(*(np.concatenate(values, axis) for values in zip(*(vars(p).values() for p in parts), strict=True)))


def _fit_day(known: Floats, stories: Floats, negative: Floats, rules: SurgeRules) -> Baseline:
    """The baseline of the day after (topics, weeks, 7 days, steps of a day); the first of the seven is its weekday."""
    observed = _sum(known)
    known = _from_first_story(known, stories, rules)
    volume = _fit(known, stories, None)
    share = (_sum(volume.weights * negative) + _PRIOR_SHARE) / (_sum(volume.weights * stories) + 1.0)
    negatives = _fit(known, negative, volume.mean * share[:, None, None])
    today = slice(0, 1)
    shape = (len(known), known.shape[3])
    level, level_error = _level(known, negative, negatives)
    mean = negatives.mean[:, today].reshape(shape) * level[:, None]
    error = np.hypot(negatives.error[:, today].reshape(shape) * level[:, None], mean * level_error[:, None])
    shares, share_dispersion = _shares(negatives.weights, stories, negative, share)
    return Baseline(
        negative=mean,
        share=shares[:, today].reshape(shape),
        dispersion=np.broadcast_to(negatives.dispersion[:, None], shape),
        error=error,
        share_dispersion=np.broadcast_to(share_dispersion[:, None], shape),
        ready=np.broadcast_to((observed >= rules.min_days * rules.steps_per_day)[:, None], shape),
    )


def _from_first_story(known: Floats, stories: Floats, rules: SurgeRules) -> Floats:
    """Take a topic's history from its first story on, once that is `min_days` old: it may have been added then.

    Until it is, the empty steps before count, so that bad news of a topic that nobody wrote about is a surge.
    """
    flat = stories.reshape(len(stories), -1)
    first = np.argmax(flat > 0, 1)
    first[flat.shape[1] - first < rules.min_days * rules.steps_per_day] = 0
    begun: Floats = known * (np.arange(flat.shape[1]) >= first[:, None]).reshape(known.shape)
    return begun


@dataclass(frozen=True)
class _Rhythm:
    """Means by hour of the week, (topics, 7, steps of a day)."""

    mean: Floats
    error: Floats
    """standard deviation of `mean`"""
    dispersion: Floats
    """(topics,)"""
    weights: Floats
    """(topics, weeks, 7, steps of a day)"""


def _fit(known: Floats, counts: Floats, prior: Floats | None) -> _Rhythm:
    """Means by hour of the week of `counts`, drawn towards `prior`, or the product of the means by day and by hour."""
    weights = known
    for again in (True, True, False):
        sums = _Sums.of(weights, counts)
        overall = _ratio(sums.counts.sum((1, 2)) + 0.5, sums.seen.sum((1, 2)) + 1.0)  # never 0
        if prior is None:
            expected = _margins(sums, overall)
        else:
            scale = _ratio(sums.counts.sum((1, 2)) + 0.5, (sums.seen * prior).sum((1, 2)) + 0.5)
            expected = np.maximum(prior * scale[:, None, None], 1e-6)
        # The prior counts as many weeks as make its relative error _RHYTHM_SPREAD.
        trust = sums.dispersion(expected)[:, None, None] / (_RHYTHM_SPREAD**2 * expected)
        mean = (sums.counts + trust * expected) / (sums.seen + trust)
        dispersion = sums.dispersion(mean)
        if again:
            weights = known * _outlier_weights(counts, mean, dispersion)
    error = np.sqrt(dispersion[:, None, None] * mean / (sums.seen + trust))
    return _Rhythm(mean, error, dispersion, weights)


@dataclass(frozen=True)
class _Sums:
    """Weighted sums over the weeks, (topics, 7, steps of a day)."""

    seen: Floats
    counts: Floats
    squares: Floats

    @classmethod
    def of(cls, weights: Floats, counts: Floats) -> _Sums:
        weighted = weights * counts
        return cls(weights.sum(1), weighted.sum(1), (weighted * counts).sum(1))

    def dispersion(self, mean: Floats) -> Floats:
        """Pearson's estimate of variance over mean, (topics,), at least 1."""
        squares = np.maximum(self.squares - 2 * mean * self.counts + mean**2 * self.seen, 0)
        return np.maximum(_ratio((squares / mean).sum((1, 2)), self.seen.sum((1, 2))), 1.0)


def _margins(sums: _Sums, overall: Floats) -> Floats:
    """The product of the means by day of the week and by step of the day, each drawn towards the topic's mean."""
    rate = overall[:, None]
    trust = 1 / (_MARGIN_SPREAD**2)
    by_day = (sums.counts.sum(2) + trust) / (sums.seen.sum(2) * rate + trust)
    by_hour = (sums.counts.sum(1) + trust) / (sums.seen.sum(1) * rate + trust)
    product: Floats = overall[:, None, None] * by_day[:, :, None] * by_hour[:, None, :]
    return product


def _outlier_weights(counts: Floats, mean: Floats, dispersion: Floats) -> Floats:
    weights = np.ones_like(counts)
    spread = np.sqrt(dispersion)[:, None, None]
    # A cheap bound first: the residual is taken of the few counts that can be outliers.
    at = np.flatnonzero(counts > (mean + _OUTLIER * spread * np.sqrt(mean))[:, None])
    topics, _, days, steps = np.unravel_index(at, counts.shape)
    centre = mean[topics, days, steps]
    raised = np.cbrt(counts.ravel()[at]) ** 2 - np.cbrt(centre) ** 2
    residual = 1.5 * raised / (spread[topics, 0, 0] * centre ** (1 / 6))
    weights.ravel()[at] = np.minimum(1.0, (_OUTLIER / np.maximum(residual, 1e-6)) ** 2)
    return weights


def _level(known: Floats, counts: Floats, rhythm: _Rhythm) -> tuple[Floats, Floats]:
    """The last seven days over the rhythm's mean, (topics,), and its relative error.

    The median of days: a surge of up to three days does not move it, and a new level is learned after four.
    """
    expected = (known[:, -1] * rhythm.mean).sum(2)
    week = expected.sum(1)
    # A day that nobody observed counts as one at the mean.
    ratios = np.where(expected > 0, _ratio((known[:, -1] * counts[:, -1]).sum(2), expected), 1.0)
    median = np.sort(ratios, 1)[:, 3]
    trust = week / (week + _LEVEL_STORIES)
    error = trust * np.sqrt(np.pi / 2 * rhythm.dispersion / np.maximum(week, 1e-6))
    return 1.0 + trust * (median - 1.0), error


def _shares(weights: Floats, stories: Floats, negative: Floats, share: Floats) -> tuple[Floats, Floats]:
    """The share of negative stories by hour of the week, (topics, 7, steps of a day), and its dispersion, (topics,).

    An hour's own share is drawn towards that of the last seven days, which is drawn towards the topic's `share`.
    """
    among, of = weights * negative, weights * stories
    trust = (1 - share) / (share * _SHARE_SPREAD**2)  # stories that make the share's relative error _SHARE_SPREAD
    lately = (_sum(among[:, -1]) + trust * share) / (_sum(of[:, -1]) + trust)
    trust, lately = trust[:, None, None], lately[:, None, None]
    shares = np.clip((among.sum(1) + trust * lately) / (of.sum(1) + trust), _MIN_SHARE, 1 - _MIN_SHARE)
    variance = _sum(of.sum(1) * shares * (1 - shares))
    squares = _sum(weights * (negative - stories * shares[:, None]) ** 2)
    return shares, np.clip(_ratio(squares, variance), 1.0, 10.0)


def _sum(values: Floats) -> Floats:
    total: Floats = values.sum(tuple(range(1, values.ndim)))
    return total


def _ratio(above: Floats, below: Floats) -> Floats:
    """`above / below`, 0 where `below` is 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)


def _above(
    stories: Counts, negative: Counts, known: Flags, baseline: Baseline, rules: SurgeRules, since: int
) -> tuple[Flags, Floats, NDArray[np.int64]]:
    """For each step from `since` on: whether a window that ends with it is above the baseline, -log10 of its tail, and
    the number of steps of the shortest such window."""
    before = stories.shape[1] - baseline.negative.shape[1]
    steps = stories.shape[1] - since
    seen = known[:, before:]
    shape = (stories.shape[0], steps)
    above, score, begins = np.zeros(shape, bool), np.zeros(shape), np.zeros(shape, np.int64)
    values = [
        np.where(seen, counts, 0.0)
        for counts in (
            negative[:, before:], stories[:, before:], baseline.negative, stories[:, before:] * baseline.share,
            baseline.error, baseline.negative * baseline.dispersion,
        )
    ]  # fmt: skip
    usable = (baseline.ready & seen)[:, -steps:]
    dispersion = baseline.share_dispersion[:, -steps:]
    most, most_of, _, most_by_share, *_ = (_windowed(v, max(WINDOWS))[:, -steps:] for v in values)
    for window in reversed(WINDOWS):
        found, of, expected, by_share, error, variance = (_windowed(v, window)[:, -steps:] for v in values)
        candidates = usable & (found >= rules.min_stories) & (found >= rules.min_ratio * expected)
        at = np.nonzero(candidates)
        tail = count_tail(found[at], expected[at], variance[at] + error[at] ** 2)
        hit = (tail < rules.significance) & _is_mood(
            found[at], of[at], by_share[at] / of[at], expected[at], variance[at], dispersion[at],
            share_tail(most[at], most_of[at], most_by_share[at] / most_of[at], dispersion[at]), rules,
        )  # fmt: skip
        at, tail = tuple(index[hit] for index in at), tail[hit]
        above[at] = True
        score[at] = np.maximum(score[at], -np.log10(np.maximum(tail, _TINY)))
        begins[at] = window
    return above, score, begins


def _is_mood(
    found: Floats, of: Floats, share: Floats, expected: Floats, variance: Floats, dispersion: Floats, lasting: Floats,
    rules: SurgeRules,
) -> Flags:  # fmt: skip
    """Whether negative stories rose more than the others: `found` of `of` stories, whose usual share is `share`.

    `lasting` is the tail probability of the share in the longest window: in a rise that keeps its mood for a day, some
    hour is more negative by chance, but not the hours before it. When the other stories have not risen at all, weaker
    evidence is enough: a topic half of whose news is bad has no surge of twenty stories that the share alone tells.
    """
    mood = share_tail(found, of, share, dispersion)
    others, usual = of - found, expected * (1 - share) / share
    more = found >= rules.min_ratio * others * share / (1 - share)
    risen = count_tail(others, usual, usual * variance / np.maximum(expected, 1e-9)) < _RISEN_SIGNIFICANCE
    sure = (mood < rules.share_significance) & (lasting < _LASTING_SIGNIFICANCE)
    return more & (sure | (~risen & (mood < _LASTING_SIGNIFICANCE)))


def _windowed(values: Floats, window: int) -> Floats:
    """Sums of the last `window` steps, of fewer at the beginning."""
    total = np.cumsum(values, 1)
    total[:, window:] -= total[:, :-window].copy()
    return total


def count_tail(found: Floats, mean: Floats, variance: Floats) -> Floats:
    """P(count >= found) of a negative-binomial distribution with this mean and variance, at least a Poisson's."""
    from scipy.special import betainc  # not at the top: a server without a surge does not load it

    ratio = np.maximum(variance / np.maximum(mean, 1e-9), 1.001)
    size = np.maximum(mean, 1e-9) / (ratio - 1)
    tail: Floats = betainc(np.maximum(found, 1e-9), size, 1 - 1 / ratio)
    return tail


def share_tail(found: Floats, of: Floats, share: Floats, dispersion: Floats) -> Floats:
    """P(count >= found) of `of` trials with probability `share`, over-dispersed: both counts are divided by it."""
    from scipy.special import betainc

    tail: Floats = betainc(found / dispersion, (of - found) / dispersion + 1, share)
    return tail


def _episodes(
    topic: int, negative: Counts, expected: Floats, known: Flags, above: Flags, score: Floats,
    begins: NDArray[np.int64], start: int, rules: SurgeRules, running: bool,
) -> list[Surge]:  # fmt: skip
    """Join the steps above the baseline to surges. Two steps in a row below end one; unknown steps do neither."""
    step_s, surges, free = rules.step_s, list[Surge](), 0
    last_complete = len(above) - (2 if running else 1)
    for found in np.flatnonzero(above).tolist():
        first = found - int(begins[found]) + 1
        if surges and first < free:
            continue  # this window has stories of the surge before
        first = max(first, 0)
        last, below, at = found, 0, found + 1
        while at < len(above) and below < 2:
            pair = slice(max(first, at - 1), at + 1)
            # A window of six steps stays above after a single step did it: the newest two must be, too.
            if known[at] and above[at] and negative[pair].sum() >= rules.min_ratio * expected[pair].sum():
                last, below = at, 0
            elif known[at] and at <= last_complete:
                below += 1
            at += 1
        ended = start + (last + 1) * step_s if below == 2 else None
        steps = slice(first, last + 1)
        surges.append(
            Surge(
                topic, start + first * step_s, ended, start + found * step_s,
                int(negative[steps][known[steps]].sum()), float(expected[steps][known[steps]].sum()),
                float(score[steps].max()),
            )
        )  # fmt: skip
        free = at
    return surges
