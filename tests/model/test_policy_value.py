"""`flywheel evaluate` on the trained ranker's answers to simulated users, of whom the truth is known."""

from __future__ import annotations

import asyncio
import csv
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import Bundle
from models.data.dataset import SEED
from models.evaluation.off_policy import discounts
from models.feedback.store import Store
from models.feedback.types import NewFeedback
from models.home import bundle_folder
from models.releases.release import local_versions, read_release
from models.tasks.recommendation import RankRequest, Recommendation
from models.training.candidate import TrainingJob
from models.training.first_version import build_first_version
from models.training.pipeline import register_candidate
from serve.config import Config, TaskConfig
from serve.engine.replica import Replica
from tests.helpers.collectors import registry_restored
from tests.helpers.command import flywheel
from tests.helpers.shoppers import SHOWN, Shoppers

pytestmark = pytest.mark.slow

TASK, ANSWERS, EXPLORE = "recommendation", 1000, 0.6
Asked = list[tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def shop(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shoppers, Asked, float]:
    """A home whose log has the champion's answers and what users chose, and a second version, of what 20 users did.

    The last is the mean of the users' discounted choices.
    """
    folder = tmp_path_factory.mktemp("shop")
    home, shoppers, draw = folder / "home", Shoppers.of_seed(), np.random.default_rng(3)
    for part in (f"releases/{TASK}.json", f"bundles/{TASK}"):
        copy = shutil.copytree if (trained_home / part).is_dir() else shutil.copy
        (home / part).parent.mkdir(parents=True, exist_ok=True)
        copy(trained_home / part, home / part)
    register_candidate(build_first_version(worse_job(folder), home, lambda *_: None), home, mlflow=False)
    asked = [
        (user, shoppers.request(user, EXPLORE, draw)) for user in draw.integers(len(shoppers.chances), size=ANSWERS)
    ]
    with registry_restored():
        answers = asyncio.run(answered(home, [body for _, body in asked]))
    gained, events = 0.0, []
    for (user, _), answer in zip(asked, answers, strict=True):
        shown = [item["id"] for item in answer["predictions"]]
        chosen = np.array([draw.random() < shoppers.chance(user, item) for item in shown])
        gained += float(chosen @ discounts(SHOWN))
        events += [
            NewFeedback(TASK, "shop", True, datetime.now(UTC), prediction_id=answer["id"], item_id=item, event=event)
            for item, event in zip(shown, np.where(chosen, "click", "view").tolist(), strict=True)
        ]
    store = Store.open(f"sqlite:///{home / 'feedback.db'}")
    assert {receipt.outcome for receipt in store.feedback.add(events, keep_days=30)} == {"accepted"}
    store.close()
    return home, shoppers, asked, gained / ANSWERS


async def answered(home: Path, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A replica's answers, once they are in the prediction log."""
    replica = Replica(TASK, Config(home=home, tasks={TASK: TaskConfig()}))
    await replica.start()
    try:
        answers = []
        for body in requests:
            request = RankRequest.model_validate(body)
            answers.append(await replica.answer(replica.choose(None), request, time.monotonic() + 30))
            await asyncio.sleep(0.001)  # for the writer of the log
        await replica.prediction_logger.flush()
        return answers
    finally:
        await replica.stop()


def worse_job(folder: Path) -> TrainingJob:
    """A training on what 20 of the shop's users did."""
    with (SEED / "catalogue.csv").open(encoding="utf-8", newline="") as file:
        items = [(row["id"], f"{row['title']}. {row['description']}", row["price"]) for row in csv.DictReader(file)]
    with (folder / "items.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("item_id", "text", "price"), *items])
    with (SEED / "behaviour.csv").open(encoding="utf-8") as file:
        lines = file.read().splitlines()
    (folder / "few.csv").write_text("\n".join([lines[0], *(line for line in lines if line < "u021")]))
    return TrainingJob(TASK, folder / "few.csv", items=folder / "items.csv")


def versions(home: Path) -> tuple[str, str]:
    """The champion, which gave the answers, and the worse version."""
    return read_release(home, TASK).champion, max(local_versions(home, TASK), key=int)


@pytest.mark.parametrize("worse", [False, True], ids=["champion", "worse"])
def test_an_estimate_is_near_the_truth(shop: tuple[Path, Shoppers, Asked, float], worse: bool) -> None:
    home, shoppers, asked, gained = shop
    version = versions(home)[worse]
    started = time.monotonic()
    done = flywheel("evaluate", TASK, "--policy", version, home=home)
    took = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    print(done.stdout)  # shown with -s
    found = [[float(n) for n in re.findall(r"[+-]?\d\.\d{4}", line)] for line in done.stdout.splitlines()]
    shown, snips, robust, difference = [row for row in found if len(row) == 3]
    assert shown[0] == pytest.approx(gained, abs=1e-4)

    draw = np.random.default_rng(4)
    true, own = (
        shoppers.value(Recommendation(Bundle.open(bundle_folder(home, TASK, name))), asked, draw)
        for name in (version, versions(home)[0])
    )
    print(f"truth: {true:.4f}, of what was shown {own:.4f}; took {took:.1f} s")
    for value, low, high in (snips, robust):
        # Of 20 intervals one misses by chance; none should by its own width.
        assert 2 * low - value < true < 2 * high - value
    value, low, high = difference
    assert 2 * low - value < true - own < 2 * high - value
    if worse:
        assert true < own
        assert "Users would choose less with version" in done.stdout
    else:
        assert "The log does not tell version" in done.stdout
    assert took < 60
