"""Towers that two Ray Train workers train together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.evaluation.metrics import ranker_metrics
from models.training.tower_examples import history_of, newest
from models.training.towers import Batches, Towers, TowerSettings, fit_towers, logits_of
from tests.unit.models.training.test_towers import no_progress, world


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")  # Ray's
def test_two_workers_train_as_one_process_does(tmp_path: Path) -> None:
    import ray

    from models.training.towers_on_workers import fit_towers_on_workers

    examples = world(users=400)
    held_out = newest(examples.user, 0.25)
    past, judged = examples.only(~held_out), examples.only(held_out)
    settings = TowerSettings(dimensions=4, members=2, min_batch_events=64, learning_rate=0.02)
    batches = Batches(judged, history_of(past), 1000)

    def quality(members: list[Towers]) -> float:
        logits = np.mean([logits_of(member, batches, len(judged.user)) for member in members], axis=0)
        return ranker_metrics(judged.user, judged.chosen, logits)["user_auc"]

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        members, losses = fit_towers_on_workers(2, past, 4, settings, tmp_path, no_progress)
        continued, _ = fit_towers_on_workers(2, past, 1, settings, tmp_path, no_progress, members)
    finally:
        ray.shutdown()
    alone, its_losses = fit_towers(past, 4, settings, no_progress)
    assert not any(tmp_path.iterdir())
    assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in its_losses], rel=0.05)
    assert quality(members) == pytest.approx(quality(alone), abs=0.02)
    assert quality(continued) > 0.75
