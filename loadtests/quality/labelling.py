"""How many labels does it take, by the review list and at random? Simulated on Banking77.

A labeller starts with 5 texts of each label of the training file and labels 100 more at a time: those that the server's
review list names first (`models/discovery/review.py`, the product's own code), or random ones. All other training texts
are the prediction log: each once, with the answer of the newest model, as the server logs it (label, score, the best
three). The correct labels are the file's. After every 100, a model is trained on all labels so far and tested on the
test file, which nobody labels and nothing is chosen on.

The model is a logistic regression (C = 10) on the sentence vectors of the default base model, which is not fine-tuned:
a fine-tuning for each of a hundred steps would take a day. The list itself sees texts and logged answers only, no
sentence vectors. `uncertain` is the list without its cover: the smallest margins first.

The ratio: labels after which the accuracy of random labelling is reached, over the labels it took, both counted with
the first ones. Accuracies by labels are made monotone by isotonic regression, each curve in the same way, so that a
lucky test of one step does not count as having arrived. With `--check`, a ratio above 0.7, at any number of random
labels from 1,000 to 3,000, in any seed, ends with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from loadtests.plot import INK, OURS, STYLE, THEIRS
from loadtests.quality.banking77 import Floats, Part, load
from models.discovery.logged_texts import LoggedText, uncertainty
from models.discovery.review import what_to_label

EXAMPLES = """examples:
  python loadtests/quality/labelling.py                    three seeds, some minutes on one core
  python loadtests/quality/labelling.py --check            the same, and exit 1 when the bound is missed
  python loadtests/quality/labelling.py --seeds 7 --plot docs/labelling.svg
"""
FIRST_OF_LABEL, STEP, MAX_LABELS = 5, 100, 3000
LEVELS = (1000, 1500, 2000, 2500, 3000)
"""random labels whose accuracy is to be reached"""
MAX_RATIO = 0.7
STRATEGIES = ("random", "uncertain", "review")
Curve = NDArray[np.float64]
"""accuracy by step: after the first labels, and after every further `STEP`"""


def learn(train: Part, labelled: Sequence[int], start: LogisticRegression | None) -> LogisticRegression:
    """The model of these labels. `start`, the model of fewer labels, only saves time."""
    model = start or LogisticRegression(C=10.0, max_iter=300, warm_start=True)
    rows = np.array(labelled)
    return model.fit(train.vectors[rows], train.labels[rows])


def logged(train: Part, rows: Sequence[int], probabilities: Floats, names: Sequence[str]) -> list[LoggedText]:
    """The texts as the prediction log has them; `probabilities` are (texts, labels)."""
    best = np.argsort(-probabilities, axis=1)[:, :3]
    found = []
    for row, scores, top in zip(rows, probabilities, best.tolist(), strict=True):
        ranked = [{"label": names[i], "score": float(scores[i])} for i in top]
        found.append(LoggedText(str(row), 0, train.texts[row], {**ranked[0], "top_k": ranked}, "1"))
    return found


def next_labels(
    strategy: str, train: Part, labelled: Sequence[int], model: LogisticRegression, rng: np.random.Generator
) -> list[int]:
    """The numbers of the next `STEP` texts to label."""
    rest = np.setdiff1d(np.arange(len(train.texts)), labelled)
    if strategy == "random":
        return [int(i) for i in rng.choice(rest, STEP, replace=False)]
    log = logged(train, rest.tolist(), model.predict_proba(train.vectors[rest]), model.classes_.tolist())
    if strategy == "uncertain":
        return [int(text.id) for text in sorted(log, key=lambda text: -uncertainty(text.prediction))[:STEP]]
    newest = [train.texts[i] for i in reversed(labelled)]
    return [int(suggestion.text.id) for suggestion in what_to_label(log, newest, STEP)]


def follow(strategy: str, train: Part, test: Part, seed: int) -> Curve:
    """The accuracies of one labeller."""
    rng = np.random.default_rng(seed)
    labelled = first_labels(train, rng)
    model, curve = None, []
    while True:
        model = learn(train, labelled, model)
        curve.append(float((model.predict(test.vectors) == test.labels).mean()))
        if len(labelled) >= MAX_LABELS:
            return np.array(curve)
        labelled = [*labelled, *next_labels(strategy, train, labelled, model, rng)]


def first_labels(train: Part, rng: np.random.Generator) -> list[int]:
    """`FIRST_OF_LABEL` random texts of each label: what the first version was trained on."""
    names = np.unique(train.labels)
    return [
        int(i)
        for name in names
        for i in rng.choice(np.flatnonzero(train.labels == name), FIRST_OF_LABEL, replace=False)
    ]


def sizes(first: int, steps: int) -> Curve:
    """Labels by step."""
    return first + STEP * np.arange(steps, dtype=np.float64)


def labels_to_reach(curve: Curve, first: int, accuracy: float) -> float:
    """The labels after which a curve has this accuracy; infinite if it never does."""
    counts = sizes(first, len(curve))
    rising = _rising(curve)
    if rising[-1] < accuracy:
        return np.inf
    return float(np.interp(accuracy, rising, counts)) if rising[0] < accuracy else float(first)


def ratio(curve: Curve, random: Curve, first: int, level: int) -> float:
    """Labels of `curve` for the accuracy of `level` random labels, over `level`."""
    accuracy = float(np.interp(level, sizes(first, len(random)), _rising(random)))
    return labels_to_reach(curve, first, accuracy) / level


def _rising(curve: Curve) -> Curve:
    rising: Curve = IsotonicRegression().fit_transform(np.arange(len(curve)), curve)
    return rising + 1e-9 * np.arange(len(curve))  # where it is level, the first step counts


def report(curves: dict[str, list[Curve]], first: int, seeds: Sequence[int], console: Console) -> list[str]:
    """Print the tables. The sentences about missed bounds."""
    mean = {name: np.mean(found, axis=0) for name, found in curves.items()}
    table = Table(title="Accuracy on the test file, mean of the seeds", title_justify="left")
    for name in ("labels", *STRATEGIES):
        table.add_column(name, justify="right")
    for step, count in enumerate(sizes(first, len(mean["random"])).astype(int).tolist()):
        if step % 5 == 0 or step == len(mean["random"]) - 1:
            table.add_row(f"{count:,}", *(f"{mean[name][step]:.2%}" for name in STRATEGIES))
    console.print(table)
    table = Table(title="Labels for the accuracy of random labelling, over its labels, by seed", title_justify="left")
    for name in ("random labels", *(f"{name} {seed}" for name in STRATEGIES[1:] for seed in seeds)):
        table.add_column(name, justify="right")
    for name in STRATEGIES[1:]:
        table.add_column(f"{name}, mean", justify="right")
    missed = []
    for level in LEVELS:
        each = {
            name: [
                ratio(curve, random, first, level) for curve, random in zip(curves[name], curves["random"], strict=True)
            ]
            for name in STRATEGIES[1:]
        }
        means = [ratio(mean[name], mean["random"], first, level) for name in STRATEGIES[1:]]
        table.add_row(f"{level:,}", *(f"{value:.2f}" for name in STRATEGIES[1:] for value in each[name]),
                      *(f"{value:.2f}" for value in means))  # fmt: skip
        missed += [
            f"{value:.2f} of the labels for the accuracy of {level:,} random ones, more than {MAX_RATIO} (seed {seed})"
            for value, seed in zip(each["review"], seeds, strict=True)
            if value > MAX_RATIO
        ]
    console.print(table)
    return missed


def draw(curves: dict[str, list[Curve]], first: int, file: Path) -> None:
    """Plot the mean curves, with the range of the seeds."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(6.5, 3.6))
        for name, colour in (("review", OURS), ("random", THEIRS)):
            found = 100 * np.stack(curves[name])
            counts = sizes(first, found.shape[1])
            axes.plot(counts, found.mean(0), color=colour)
            axes.fill_between(counts, found.min(0), found.max(0), color=colour, alpha=0.2, linewidth=0)
            title = {"review": "as /v2/review says", "random": "at random"}[name]
            axes.text(counts[-1], found.mean(0)[-1], f" {title}", color=colour, va="center")
        level = float(np.interp(MAX_LABELS, counts, 100 * _rising(np.mean(curves["random"], axis=0))))
        reached = labels_to_reach(np.mean(curves["review"], axis=0), first, level / 100)
        axes.plot([reached, MAX_LABELS], [level, level], color=INK, linestyle="--", linewidth=1)
        axes.text(
            (reached + MAX_LABELS) / 2, level, f"{reached / MAX_LABELS:.2f} of the labels", ha="center", va="bottom"
        )
        axes.set_xlim(0, MAX_LABELS * 1.25)
        axes.set_xlabel("labels")
        axes.set_ylabel("accuracy, % (Banking77, test)")
        figure.tight_layout()
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--check", action="store_true", help="exit 1 when the bound is missed")
    parser.add_argument("--plot", type=Path, help="write the curves to this SVG file")
    options = parser.parse_args()
    train, test, console = load("train"), load("test"), Console()
    curves: dict[str, list[Curve]] = {name: [] for name in STRATEGIES}
    for seed in options.seeds:
        for name in STRATEGIES:
            curves[name].append(follow(name, train, test, seed))
            console.print(f"seed {seed}, {name}: {curves[name][-1][-1]:.2%} in the end", highlight=False)
    first = FIRST_OF_LABEL * len(np.unique(train.labels))
    missed = report(curves, first, options.seeds, console)
    if options.plot:
        draw(curves, first, options.plot)
    for sentence in missed:
        console.print(f"missed: {sentence}", style="red", highlight=False)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
