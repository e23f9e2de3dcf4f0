"""What continuing from a champion is worth beside a training anew, on MovieLens-100K.

`pytest -m slow -s tests/model/test_continued_ranker.py` prints the figures of docs/decisions/0040-towers.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.checkpoint import load_checkpoint
from loadtests.quality import movielens
from models.data.interactions import Events, Interactions
from models.evaluation.evaluate import score_holdout
from models.evaluation.metrics import ranker_metrics
from models.training.config import Recipe
from models.training.fit_ranker import _pooled_texts, continue_ranker, fit_ranker
from models.training.tower_checkpoint import TrainedTowers
from models.training.tower_examples import newest

MAX_LOSS = 0.005
RECIPE = Recipe(max_length=64, threads=1)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not movielens.DATA.is_dir(), reason=f"{movielens.DATA} is missing"),
]


def interactions() -> Interactions:
    ratings = movielens.read(movielens.DATA)
    events = Events.of(ratings.user, ratings.item, ratings.liked, ratings.time, holdout=ratings.test)
    users = [f"u{at}" for at in range(int(ratings.user.max()) + 1)]
    return Interactions("movielens", users, [f"m{at}" for at in range(len(ratings.texts))], ratings.texts, events)


def without(whole: Interactions, rows: NDArray[np.bool_]) -> Interactions:
    """Without these events."""
    return replace(whole, events=whole.events.take(~rows), context_features=np.zeros((0, 0)), fingerprint="")


def quality(checkpoint: Path, whole: Interactions) -> dict[str, float]:
    """The metrics on the holdout of the checkpoint's towers, before export."""
    model, tokenizer = load_checkpoint(checkpoint)
    with torch.no_grad():
        texts = torch.from_numpy(_pooled_texts(model, tokenizer, whole, RECIPE, quiet))
        projections = model.head(texts).numpy()
    scored = score_holdout(TrainedTowers.load(checkpoint).ranker(projections), None, whole)  # type: ignore[arg-type]
    return ranker_metrics(scored.users, scored.chosen, scored.scores)


def quiet(stage: str, done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_a_continued_training_reaches_one_from_nothing(seed: int, tmp_path: Path) -> None:
    """The champion knows the oldest four fifths of each user's training events; the newer ones are new to it."""
    whole = interactions()
    training = np.flatnonzero(whole.events.training)
    new = np.zeros(len(whole.events), bool)
    new[training[newest(whole.events.user[training], 0.2)]] = True
    before, recipe = without(whole, new), replace(RECIPE, seed=seed)
    runs: dict[str, Callable[[Path], object]] = {
        "champion": lambda out: fit_ranker(before, recipe, out, quiet),
        "continued": lambda out: continue_ranker(whole, new, tmp_path / "champion", recipe, out, quiet),
        "anew": lambda out: fit_ranker(whole, recipe, out, quiet),
    }
    found = {}
    for name, run in runs.items():
        started, cpu = time.perf_counter(), time.process_time()
        run(tmp_path / name)
        took = time.perf_counter() - started, time.process_time() - cpu
        found[name] = quality(tmp_path / name, whole)
        print(f"seed {seed}, {name}: {found[name]}, {took[0]:.0f} s, {took[1]:.0f} s of CPU time")
    for metric, value in found["anew"].items():
        assert found["continued"][metric] >= value - MAX_LOSS, metric
