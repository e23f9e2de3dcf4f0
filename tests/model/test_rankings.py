"""A retraining of the ranker: from rankings in the log to a version that ranks better."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from export.bundle import Bundle
from export.session import OnnxSession
from models.data.dataset import SEED
from models.data.interaction_files import load_interactions
from models.feedback.store import Store
from models.feedback.types import LoggedPrediction, NewFeedback
from models.releases.release import read_release
from models.retraining.plan import Plan
from models.retraining.run import retrain
from models.tasks.base import get_task

STAR = {"id": "new-1", "text": "Everglow lantern. A lamp that never needs charging.", "features": {"price": 19.0}}


@pytest.fixture
def shop(home: Path) -> Iterator[tuple[Path, Store]]:
    """A home whose recommendation champion was asked by 60 users, who all bought what it did not know."""
    store = Store.open(f"sqlite:///{home / 'feedback.db'}")
    rng = random.Random(7)
    with (SEED / "catalogue.csv").open(encoding="utf-8") as file:
        catalogue = list(csv.DictReader(file))
    start = datetime.now(UTC) - timedelta(hours=2)
    rows, events = [], []
    for number in range(120):
        at = start + timedelta(seconds=number)
        category = rng.choice(sorted({item["category"] for item in catalogue}))
        own = rng.sample([item for item in catalogue if item["category"] == category], 4)
        others = rng.sample([item for item in catalogue if item["category"] != category], 4)
        told = [
            {"id": item["id"], "text": f"{item['title']}. {item['description']}",
             "features": {"price": float(item["price"])}}
            for item in (*own, *others)
        ]  # fmt: skip
        shown = rng.sample([*told[3:], STAR], 6)
        id_ = f"{int(at.timestamp() * 1000):012x}{number:020x}"
        request = {"user": {"id": f"hash{number % 60}", "history": told[:3]}, "candidates": shown, "top_k": None}
        answer = [{"id": item["id"], "score": 0.5} for item in shown]
        rows.append(LoggedPrediction(id_, "recommendation", "1", request, answer, at, user=f"hash{number % 60}"))
        events += [
            NewFeedback("recommendation", "shop", True, at, prediction_id=id_, item_id=item, event="buy")
            for item in (STAR["id"], told[3]["id"])
        ]
    store.predictions.log(rows)
    assert {receipt.outcome for receipt in store.feedback.add(events, keep_days=30)} == {"accepted"}
    yield home, store
    store.close()


def score_of_star(home: Path, version: str) -> float:
    bundle = Bundle.open(home / "bundles" / "recommendation" / version)
    task = get_task("recommendation")(bundle)
    request = task.Request.model_validate({"candidates": [STAR]})
    texts = task.texts(request)  # none, once the version was trained with the item
    output = OnnxSession(bundle, providers="cpu").predict(texts) if texts else np.zeros((0, 0), np.float32)
    return float(task.decode(request, task.activate(output), [False] * len(texts))[0]["score"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy
def test_what_users_chose_is_ranked_higher_by_the_next_version(shop: tuple[Path, Store]) -> None:
    home, store = shop
    champion = read_release(home, "recommendation").champion
    result = retrain(Plan("recommendation"), home, store, "a test", lambda *_: None)
    assert result.outcome == "released", result.sentence
    release = read_release(home, "recommendation")
    assert (release.champion, release.challenger, release.mode) == (champion, result.version, "canary")
    assert score_of_star(home, str(result.version)) > score_of_star(home, champion)
    counts = store.feedback.counts("recommendation")
    assert counts["used"] > 100
    assert counts["waiting"] == result.requeued >= 20  # these judged, and are learned in the next run
    data = Bundle.open(home / "bundles" / "recommendation" / str(result.version)).manifest.data
    assert (data.parent, data.samples) == (champion, counts["used"])
    assert data.fingerprint == load_interactions().fingerprint
    erased = store.privacy.erase("hash0")
    assert erased.versions == {"recommendation": [result.version]}
