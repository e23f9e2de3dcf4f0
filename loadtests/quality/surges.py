"""How often a quiet topic has a false alarm, and how soon a planted surge of negative stories is found.

Streams are made: stories a hour by the rhythm of a week (working days, office hours, quiet nights and weekends), with a
variance above Poisson's, each negative with the topic's own probability. Eight weeks are history, eight are judged. The
parameters of `models/opinion/surges.py` were chosen on the seeds of `--choosing`; the tables are from others.

With `--check`, a missed bound ends with 1: more than one false alarm a topic a month in any kind of quiet stream, or over
all kinds of streams that change without a surge; fewer than 95 % of the tenfold surges found within two steps; or an
alarm in more than 5 % of the rises that keep their mood.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import beta, chi2

from loadtests.plot import INK, OURS, THEIRS
from models.opinion.surges import Surge, SurgeRules, find_surges, known_steps

EXAMPLES = """examples:
  python loadtests/quality/surges.py                 the tables, about three minutes on one core
  python loadtests/quality/surges.py --check         the same, and exit 1 when a bound is missed
  python loadtests/quality/surges.py --topics 4      a quick look
  python loadtests/quality/surges.py --plot docs/surges.svg
"""
VOLUMES = (0.2, 1.0, 5.0, 20.0, 200.0)
"""stories an hour"""
DISPERSIONS = (1.0, 2.0, 3.0)
"""variance of the stories of an hour over their mean"""
SHARES = (0.05, 0.2, 0.5)
"""of negative stories"""
FACTORS = (2, 3, 5, 10)
WEEK = 168
HISTORY, JUDGED = 8 * WEEK, 8 * WEEK
START = 2800 * WEEK * 3600
"""a Thursday, midnight UTC"""
MONTHS = JUDGED / 24 / 30.4
SURGE_HOURS = 6
MIN_IN_TWO_STEPS = 10
"""negative stories expected in a surge's first two hours from which finding it within them is asked for: of fewer,
chance leaves less than five, the least that makes an alarm"""
MAX_FALSE_ALARMS, MIN_FOUND, MAX_MOOD_KEPT = 1.0, 0.95, 0.05
CHOOSING, REPORTING = 1, 1000
"""first seeds"""


@dataclass(frozen=True)
class Stream:
    """Hours of topics of one kind, (topics, hours)."""

    stories: NDArray[np.int64]
    negative: NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """A kind of topic."""

    volume: float
    dispersion: float
    share: float

    def __str__(self) -> str:
        return f"{self.volume:g}/h, dispersion {self.dispersion:g}, {self.share:.0%} negative"


KINDS = [Kind(v, d, s) for v in VOLUMES for d in DISPERSIONS for s in SHARES]


def rhythm(hours: NDArray[np.int64]) -> NDArray[np.float64]:
    """Expected stories over their mean, by hour: nights at a tenth of the day, weekends at a third of working days."""
    of_day, of_week = hours % 24, (hours // 24 + 3) % 7  # START is a Thursday
    day = 0.15 + np.exp(-0.5 * ((of_day - 13.5) / 3.5) ** 2) + 0.6 * (of_day == 7)  # a jump before the market opens
    shape: NDArray[np.float64] = day * np.where(of_week < 5, 1.0, 0.33)
    return shape


def made(kind: Kind, topics: int, rng: np.random.Generator, volume: object = 1.0, share: object = None) -> Stream:
    """Streams of `kind`; `volume` (factor) and `share` may be (topics, hours) or (hours,)."""
    hours = np.arange(HISTORY + JUDGED)
    shape = rhythm(hours)
    mean = kind.volume * shape / shape.mean() * np.broadcast_to(np.asarray(volume), (topics, len(hours)))
    stories = overdispersed(mean, kind.dispersion, rng)
    negative = rng.binomial(stories, np.broadcast_to(np.asarray(kind.share if share is None else share), stories.shape))
    return Stream(stories, negative)


def overdispersed(mean: NDArray[np.float64], dispersion: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Negative-binomial counts with variance `dispersion` times the mean."""
    if dispersion > 1:
        mean = rng.gamma(np.maximum(mean / (dispersion - 1), 1e-9)) * (dispersion - 1)
    return rng.poisson(mean)


def with_surges(
    stream: Stream, kind: Kind, at: NDArray[np.int64], factor: float, hours: int, rng: np.random.Generator
) -> tuple[Stream, NDArray[np.float64]]:
    """Add negative stories from hour `at` of each topic on, `factor` times the expected in all.

    Also returns the negative stories that are expected in the first two hours, (topics,).
    """
    shape = rhythm(np.arange(HISTORY + JUDGED))
    expected = kind.volume * kind.share * shape / shape.mean()
    inside = at[:, None] + np.arange(hours)
    extra = overdispersed(expected[inside] * (factor - 1), kind.dispersion, rng)
    stories, negative = stream.stories.copy(), stream.negative.copy()
    rows = np.arange(len(at))[:, None]
    stories[rows, inside] += extra
    negative[rows, inside] += extra
    return Stream(stories, negative), factor * expected[inside[:, :2]].sum(1)


def surges(stream: Stream, rules: SurgeRules, since: int = HISTORY, **options: object) -> list[Surge]:
    return find_surges(stream.stories, stream.negative, START, rules, since=since, **options)  # type: ignore[arg-type]


def steps_until_found(found: Sequence[Surge], at: NDArray[np.int64], within: int) -> NDArray[np.float64]:
    """(topics,) steps from the surge's first to the one with which it was found, from 1; nan where it was not."""
    taken = np.full(len(at), np.nan)
    for surge in found:
        step = (surge.found - START) // 3600 - at[surge.topic] + 1
        if 1 <= step <= within:
            taken[surge.topic] = np.nanmin([taken[surge.topic], step])
    return taken


def of_count(count: int, months: float) -> tuple[float, float, float]:
    """Events a month with their exact 95 % interval (Garwood, 1936, https://doi.org/10.1093/biomet/28.3-4.437)."""
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return count / months, low / months, chi2.ppf(0.975, 2 * count + 2) / 2 / months


def of_share(hits: int, total: int) -> tuple[float, float, float]:
    """A share with its exact 95 % interval (Clopper and Pearson, 1934, https://doi.org/10.1093/biomet/26.4.404)."""
    if not total:
        return np.nan, np.nan, np.nan
    low = beta.ppf(0.025, hits, total - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, total - hits) if hits < total else 1.0
    return hits / total, float(low), float(high)


@dataclass
class Run:
    """What is measured, and the sentences about missed bounds."""

    topics: int
    rules: SurgeRules
    seed: int
    console: Console
    missed: list[str]

    def rng(self, *of: object) -> np.random.Generator:
        return np.random.default_rng([self.seed, *np.frombuffer(repr(of).encode(), np.uint8)])

    def table(self, title: str, *columns: str) -> Table:
        table = Table(title=title, title_justify="left")
        for name in columns:
            table.add_column(name, justify="left" if name == columns[0] else "right")
        return table

    def quiet(self) -> None:
        """False alarms of quiet streams by volume, and of the worst kind."""
        table = self.table(
            "Quiet streams: false alarms a topic a month", "stories an hour", "all kinds", "95 % interval",
            "worst kind", "of them Mondays 0 to 12 h", "which",
        )  # fmt: skip
        total, mondays = 0, 0
        for volume in VOLUMES:
            counts: dict[Kind, list[Surge]] = {}
            for kind in (kind for kind in KINDS if kind.volume == volume):
                counts[kind] = surges(made(kind, self.topics, self.rng("quiet", kind)), self.rules)
            months = self.topics * MONTHS
            worst = max(counts, key=lambda kind: len(counts[kind]))
            alarms = [surge for found in counts.values() for surge in found]
            rate, low, high = of_count(len(alarms), months * len(counts))
            after_weekend = sum(_is_monday_morning(surge) for surge in alarms)
            table.add_row(
                f"{volume:g}", f"{rate:.3f}", f"{low:.3f} to {high:.3f}", f"{len(counts[worst]) / months:.2f}",
                f"{after_weekend} of {len(alarms)}", str(worst),
            )  # fmt: skip
            total, mondays = total + len(alarms), mondays + after_weekend
            for kind, found in counts.items():
                self.bound(f"quiet, {kind}", len(found) / months, MAX_FALSE_ALARMS)
        rate, low, high = of_count(total, self.topics * MONTHS * len(KINDS))
        table.add_row("all", f"{rate:.3f}", f"{low:.3f} to {high:.3f}", "", f"{mondays} of {total}", "")
        self.console.print(table)

    def others(self) -> None:
        """False alarms of streams that change without a surge."""
        table = self.table(
            "Streams that change, without a surge: false alarms a topic a month", "", "all kinds", "95 % interval",
            "worst kind", "which",
        )  # fmt: skip
        for name, make in CHANGES.items():
            counts = {kind: make(self, kind) for kind in KINDS}
            months = self.topics * MONTHS
            rate, low, high = of_count(sum(counts.values()), months * len(KINDS))
            worst = max(counts, key=counts.__getitem__)
            table.add_row(name, f"{rate:.3f}", f"{low:.3f} to {high:.3f}", f"{counts[worst] / months:.2f}", str(worst))
            self.bound(name, rate, MAX_FALSE_ALARMS)
        self.console.print(table)

    def found(self) -> dict[int, list[tuple[float, float]]]:
        """Planted surges: found within 1, 2 and 6 steps, by the negative stories that their first two hours expect."""
        edges = (0.0, 2.0, 5.0, float(MIN_IN_TWO_STEPS), 20.0, 50.0, np.inf)
        columns = ("negative stories expected in the first two hours", "surges", "1 step", "2 steps", "6 steps", "95 %")
        curve: dict[int, list[tuple[float, float]]] = {}
        for factor in FACTORS:
            expected, taken = (np.concatenate(parts) for parts in zip(*self._planted(factor), strict=True))
            table = self.table(f"Surges of {SURGE_HOURS} hours, {factor}-fold: found within", *columns)
            curve[factor] = []
            for low, high in pairwise(edges):
                inside = (expected >= low) & (expected < high)
                share, least, most = of_share(int((taken[inside] <= 2).sum()), int(inside.sum()))
                name = f"{low:g} to {high:g}" if high < np.inf else f"{low:g} and more"
                shares = (f"{(taken[inside] <= steps).mean():.1%}" if inside.any() else "-" for steps in (1, 2, 6))
                table.add_row(name, str(inside.sum()), *shares, f"2 steps: {least:.1%} to {most:.1%}")
                if inside.any():
                    curve[factor].append((float(np.median(expected[inside])), share))
            asked = expected >= MIN_IN_TWO_STEPS
            share, least, most = of_share(int((taken[asked] <= 2).sum()), int(asked.sum()))
            steps = (f"{(taken[asked] <= steps).mean():.1%}" for steps in (1, 2, 6))
            table.add_row(
                f"{MIN_IN_TWO_STEPS} and more", str(asked.sum()), *steps, f"2 steps: {least:.1%} to {most:.1%}"
            )
            self.console.print(table)
            if factor == 10 and share < MIN_FOUND:
                self.missed.append(
                    f"{share:.1%} of the tenfold surges were found within two steps, not {MIN_FOUND:.0%}"
                )
        return curve

    def _planted(self, factor: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        for kind in KINDS:
            rng = self.rng("surge", kind, factor)
            stream = made(kind, self.topics, rng)
            at = rng.integers(HISTORY + WEEK, HISTORY + JUDGED - 24, self.topics)
            stream, expected = with_surges(stream, kind, at, factor, SURGE_HOURS, rng)
            yield expected, steps_until_found(surges(stream, self.rules, HISTORY + WEEK), at, SURGE_HOURS)

    def mood_kept(self) -> None:
        """Rises of all stories for a day that keep the share of negative ones."""
        table = self.table("Rises of a day that keep their mood: share with an alarm", "rise", "share", "95 % interval")
        for factor in (3, 10):
            alarms = 0
            for kind in KINDS:
                rng = self.rng("mood", kind, factor)
                at = rng.integers(HISTORY + WEEK, HISTORY + JUDGED - 48, self.topics)
                volume = np.ones((self.topics, HISTORY + JUDGED))
                volume[np.arange(self.topics)[:, None], at[:, None] + np.arange(24)] = factor
                found = surges(made(kind, self.topics, rng, volume), self.rules, HISTORY + WEEK)
                alarms += int(np.isfinite(steps_until_found(found, at, 26)).sum())
            share, low, high = of_share(alarms, self.topics * len(KINDS))
            table.add_row(f"{factor}-fold", f"{share:.2%}", f"{low:.2%} to {high:.2%}")
            if share > MAX_MOOD_KEPT:
                self.missed.append(f"{share:.1%} of the {factor}-fold rises that kept their mood had an alarm")
        self.console.print(table)

    def durations(self) -> None:
        """A tenfold surge of six hours and one that lasts: when the alert ends."""
        table = self.table(
            "When an alert ends (20 stories an hour, 20 % negative)", "negative stories", "median", "90 %"
        )
        kind = Kind(20.0, 2.0, 0.2)
        for name, factor, hours in (
            ("tenfold for 6 h", 10, 6),
            ("tenfold for 24 h", 10, 24),
            ("threefold for good", 3, 500),
        ):
            rng = self.rng("duration", name)
            at = HISTORY + WEEK + 4 * 24 + 12 + rng.integers(0, 3, 40) * WEEK  # Mondays at noon
            stream, _ = with_surges(made(kind, len(at), rng), kind, at, factor, hours, rng)
            ends = np.full(len(at), np.nan)
            for surge in surges(stream, self.rules, HISTORY + WEEK):
                if surge.ended and 0 <= (surge.started - START) // 3600 - at[surge.topic] + 6 <= hours:
                    ends[surge.topic] = (surge.ended - START) // 3600 - at[surge.topic]
            ends = ends[np.isfinite(ends)]
            table.add_row(name, f"{np.median(ends):.0f} h", f"{np.quantile(ends, 0.9):.0f} h")
        self.console.print(table)

    def speed(self) -> None:
        """Seconds of CPU for 200 topics."""
        stream = made(Kind(5.0, 2.0, 0.2), 200, self.rng("speed"))
        surges(stream, self.rules, HISTORY + JUDGED - 2)
        for name, since in (("the newest two hours", HISTORY + JUDGED - 2), ("eight weeks of hours", HISTORY)):
            begun = time.process_time()
            surges(stream, self.rules, since)
            self.console.print(f"200 topics, {name}: {time.process_time() - begun:.2f} s of CPU time")

    def bound(self, what: str, rate: float, limit: float) -> None:
        if rate > limit:
            self.missed.append(f"{what}: {rate:.2f} false alarms a topic a month, more than {limit:g}")


def _is_monday_morning(surge: Surge) -> bool:
    hours = (surge.found - START) // 3600
    return (hours // 24 + 3) % 7 == 0 and hours % 24 < 12


Change = Callable[[Run, Kind], int]


def _drift(volume: float = 1.0, share: float = 1.0) -> Change:
    """Volume, and the share of negative stories up to 90 %, times so much from the first to the last hour."""

    def count(run: Run, kind: Kind) -> int:
        way = np.linspace(0, 1, HISTORY + JUDGED)
        rng = run.rng("drift", kind, volume, share)
        shares = np.minimum(kind.share * share**way, max(kind.share, 0.9))
        return len(surges(made(kind, run.topics, rng, volume**way, shares), run.rules))

    return count


def _after_outbreaks(run: Run, kind: Kind) -> int:
    """Two tenfold surges of half a day and one of two days lie in the history."""
    rng = run.rng("outbreaks", kind)
    stream = made(kind, run.topics, rng)
    for hours in (12, 12, 48):
        at = rng.integers(0, HISTORY - 100, run.topics)
        stream, _ = with_surges(stream, kind, at, 10, hours, rng)
    return len(surges(stream, run.rules))


def _new_topic(run: Run, kind: Kind) -> int:
    """No history: the first eight weeks are judged."""
    stream = made(kind, run.topics, run.rng("new", kind))
    return len(surges(Stream(stream.stories[:, :JUDGED], stream.negative[:, :JUDGED]), run.rules, 0))


def _new_among_others(run: Run, kind: Kind) -> int:
    """The topic begins in the middle of what is judged; nobody says that the zeros before were no silence."""
    stream = made(kind, run.topics, run.rng("late", kind))
    stories, negative = stream.stories.copy(), stream.negative.copy()
    stories[:, : HISTORY + JUDGED // 2] = negative[:, : HISTORY + JUDGED // 2] = 0
    return len(surges(Stream(stories, negative), run.rules))


def _gaps(run: Run, kind: Kind) -> int:
    """The server was off for a week of the history and for two days of the judged weeks, as the whole stream shows."""
    rng = run.rng("gaps", kind)
    stream = made(kind, run.topics, rng)
    total = made(Kind(100.0, 2.0, 0.2), 1, rng).stories[0]
    stories, negative = stream.stories.copy(), stream.negative.copy()
    for begin, end in ((3 * WEEK, 4 * WEEK), (HISTORY + 2 * WEEK, HISTORY + 2 * WEEK + 48)):
        stories[:, begin:end] = negative[:, begin:end] = total[begin:end] = 0
    known = known_steps(total, START, run.rules)
    return len(surges(Stream(stories, negative), run.rules, known=known))


CHANGES: dict[str, Change] = {
    "volume doubles in 16 weeks": _drift(volume=2),
    "volume times 8 in 16 weeks": _drift(volume=8),
    "volume falls to a quarter": _drift(volume=0.25),
    "share of negative doubles in 16 weeks": _drift(share=2),
    "three surges in the history": _after_outbreaks,
    "no history": _new_topic,
    "begins after 12 weeks of zeros": _new_among_others,
    "server off for a week and for two days": _gaps,
}


def draw(curve: dict[int, list[tuple[float, float]]], file: Path) -> None:
    """Plot the share of surges that are found within two steps."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    style = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "legend.labelcolor"), INK
    )
    style |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "flywheel"}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(6.5, 3.2))
        for factor, points in curve.items():
            colour = OURS if factor == 10 else THEIRS
            axes.plot(*zip(*points, strict=True), marker="o", color=colour, alpha=0.25 + 0.075 * factor)
            axes.annotate(f"{factor}-fold", points[-1], xytext=(6, -3), textcoords="offset points", color=colour)
        axes.axhline(MIN_FOUND, color=INK, linestyle="--", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("negative stories expected in the surge's first two hours")
        axes.set_ylabel("found within two steps")
        axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        figure.tight_layout()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)


def main() -> int:
    options = parse()
    rules = (
        SurgeRules()
        if options.false_alarms is None
        else replace(SurgeRules(), false_alarms_per_month=options.false_alarms)
    )
    run = Run(options.topics, rules, CHOOSING if options.choosing else REPORTING, Console(width=options.width), [])
    run.quiet()
    run.others()
    curve = run.found()
    run.mood_kept()
    run.durations()
    run.speed()
    if options.plot:
        draw(curve, options.plot)
    for sentence in run.missed:
        run.console.print(f"missed: {sentence}")
    return 1 if options.check and run.missed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a bound is missed")
    parser.add_argument("--topics", type=int, default=20, help="topics of each of the 45 kinds (default %(default)s)")
    parser.add_argument("--false-alarms", type=float, help="the rules' false_alarms_per_month")
    parser.add_argument("--choosing", action="store_true", help="the seeds on which the parameters were chosen")
    parser.add_argument("--plot", type=Path, help="write the curve as SVG to this file")
    parser.add_argument("--width", type=int, default=130, help="columns of the tables")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
