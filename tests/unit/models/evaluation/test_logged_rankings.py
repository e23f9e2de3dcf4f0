"""What of the log judges a version: which items users chose, by events and their values."""

from __future__ import annotations

from pathlib import Path

from models.evaluation.logged_rankings import read_rankings
from models.feedback.store import Store
from models.feedback.types import LoggedPrediction, NewFeedback
from tests.helpers.store_fixtures import NOW, made

TASK = "recommendation"
EVENTS = [
    ("clicked", "click", None), ("bought", "buy", None), ("liked", "like", None), ("viewed", "view", None),
    ("disliked", "dislike", None), ("good", "rating", 4.0), ("bad", "rating", 3.0), ("read", "dwell", 30.0),
    ("left", "dwell", 5.0), ("both", "view", None), ("both", "click", None), ("unrated", "rating", None),
    ("later", "share", None),
]  # fmt: skip


def test_an_item_is_chosen_by_what_its_events_say(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'feedback.db'}")
    names = list(dict.fromkeys(name for name, _, _ in EVENTS))
    output = [{"id": name, "score": 0.5, "propensity": 0.5} for name in names]
    request = {"candidates": [{"id": name, "text": name} for name in names], "explore": 0.5}
    store.predictions.log([LoggedPrediction(made(1), TASK, "1", request, output, NOW)])
    given = [
        NewFeedback(TASK, "shop", False, NOW, prediction_id=made(1), item_id=item, event=event, value=value)
        for item, event, value in EVENTS
    ]
    assert {receipt.outcome for receipt in store.feedback.add(given, keep_days=30)} == {"accepted"}
    [ranking] = read_rankings(store, TASK, 10)
    assert ranking.chosen == {"clicked", "bought", "liked", "good", "read", "both"}
    store.close()
