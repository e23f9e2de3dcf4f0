"""What users do with rankings becomes interactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import Lineage
from models.data.dataset import DatasetError
from models.data.histories import histories_of
from models.data.implicit_feedback import unusable_reason, with_rankings
from models.data.interaction_files import load_interactions, load_kept_interactions, save_interactions
from models.data.interactions import KEPT_ENDING, Events, Interactions
from models.feedback.types import Sample
from models.home import corpus_file
from models.retraining.run import _split
from models.training.tower_examples import examples_of, scalings_of

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def event(
    item: str, what: str = "click", answer: str = "1", ranked: str = "abcde", user: str | None = "ann",
    history: Sequence[Any] = (), minute: int = 0, number: int = 0, value: float | None = None,
) -> Sample:  # fmt: skip
    """What somebody did with an item of the answer that ranked the candidates a to f as in `ranked`."""
    request = {
        "user": {"id": user, "history": list(history)},
        "candidates": [{"id": name, "text": f"item {name}", "features": {"price": 2.0}} for name in "abcdef"],
    }
    output = [{"id": name} for name in ranked]
    extra = {"item_id": item, "event": what, "value": value, "input": request, "output": output}
    at = NOON + timedelta(minutes=minute)
    return Sample(number, "recommendation", f"item {item}", what, "shop", at, None, answer, "1", extra=extra)


EMPTY = Interactions("file", [], [], [], Events.empty())


def seen(interactions: Interactions) -> list[tuple[str, bool]]:
    events = interactions.events.take(~interactions.events.before)
    return list(zip((interactions.item_names[item] for item in events.item), events.chosen.tolist(), strict=True))


def test_seen_is_what_stood_above_the_last_click_and_one_below() -> None:
    assert seen(with_rankings(EMPTY, [], [event("b", ranked="abcde")])) == [("a", False), ("c", False), ("b", True)]
    assert seen(with_rankings(EMPTY, [], [event("e", ranked="abcde")]))[-1] == ("e", True)
    both = with_rankings(EMPTY, [], [event("a"), event("b", "buy")])
    assert seen(both) == [("c", False), ("a", True), ("b", True)]


def test_what_was_only_viewed_was_seen_and_not_chosen() -> None:
    assert seen(with_rankings(EMPTY, [], [event("b", "view")])) == [("a", False), ("b", False), ("c", False)]


def test_each_answer_is_read_by_itself_in_order_of_time() -> None:
    later, earlier = event("a", answer="1", minute=5), event("b", answer="2", ranked="bc")
    interactions = with_rankings(EMPTY, [], [later, earlier])
    assert seen(interactions) == [("c", False), ("b", True), ("b", False), ("a", True)]
    assert interactions.user_names == ["ann"]


def test_who_is_not_named_is_somebody_else_in_each_answer() -> None:
    interactions = with_rankings(EMPTY, [], [event("a", answer="1", user=None), event("a", answer="2", user=None)])
    assert sorted(interactions.user_names) == ["1", "2"]


def test_history_tells_who_the_user_is_once_and_is_not_a_choice_that_is_learned() -> None:
    history = ["a kettle", {"id": "f", "text": "item f", "features": {}}, {"text": "a spoon"}]
    first, again = event("b", history=history), event("c", answer="2", history=[*history, "a bowl"], minute=1)
    interactions = with_rankings(EMPTY, [], [first, again])
    before = interactions.events.take(interactions.events.before)
    assert [interactions.item_names[item] for item in before.item] == ["a kettle", "f", "a spoon", "a bowl"]
    assert before.chosen.all()
    assert not (interactions.events.training & interactions.events.before).any()
    assert interactions.lineage().train_rows == len(interactions.events) - 4
    assert interactions.texts[interactions.item_names.index("a kettle")] == "a kettle"
    assert interactions.item_numbers(interactions.item_names.index("b")) == {"price": 2.0}


def test_what_a_user_had_chosen_before_is_history_and_not_learned() -> None:
    events = [event("b", answer=str(n), history=["a kettle"], minute=n) for n in range(6)]
    interactions = with_rankings(EMPTY, [], events)
    examples = examples_of(interactions, np.zeros((len(interactions.texts), 1), np.float32), scalings_of(interactions))
    kettle = examples.item == interactions.item_names.index("a kettle")
    assert not examples.learn[kettle].any()
    assert examples.past[kettle].all()
    assert examples.learn.any()


def test_held_out_are_those_that_judge() -> None:
    interactions = with_rankings(EMPTY, [event("a", answer="1")], [event("b", answer="2")], [event("c", answer="3")])
    assert interactions.events.holdout.sum() == 4
    assert interactions.added["samples"] == interactions.added["learned_samples"] == 1


def test_an_answer_that_was_learned_from_does_not_judge() -> None:
    interactions = with_rankings(EMPTY, [event("a", answer="1")], [], [event("b", answer="1"), event("b", answer="2")])
    assert interactions.events.holdout.sum() == 3


def test_what_was_told_of_one_answer_is_not_divided() -> None:
    events = [event("a", answer=str(n % 60), minute=n, number=n) for n in range(120)]
    learn, judge = _split(events, 0.2)
    assert {sample.prediction_id for sample in learn}.isdisjoint({sample.prediction_id for sample in judge})
    assert len(learn) + len(judge) == 120
    assert max(sample.at for sample in events) == judge[-1].at


def test_a_ranking_that_the_log_no_longer_has_says_nothing() -> None:
    gone = replace(event("a"), extra={"item_id": "a", "event": "click", "input": None, "output": None})
    assert unusable_reason(gone) == "its ranking is no longer in the log"
    assert unusable_reason(event("f")) == "its item was not in the answer"
    assert unusable_reason(event("a")) is None
    assert len(with_rankings(EMPTY, [gone], [gone, event("f")]).events) == 0


def test_interactions_are_kept_as_they_were_read(tmp_path: Path) -> None:
    seed = load_interactions()
    kept = corpus_file(tmp_path, "recommendation", seed.fingerprint, KEPT_ENDING)
    shipped = load_kept_interactions(tmp_path, "recommendation", seed.lineage())
    assert shipped.fingerprint == seed.fingerprint
    kept.parent.mkdir(parents=True)
    save_interactions(seed, kept)
    found = load_kept_interactions(tmp_path, "recommendation", seed.lineage())
    assert found.lineage() == seed.lineage()
    assert (found.item_names, found.texts, found.item_numbers(3)) == (
        seed.item_names, seed.texts, seed.item_numbers(3)
    )  # fmt: skip
    changed = replace(seed, user_names=[*seed.user_names[1:], "somebody else"])
    save_interactions(changed, kept)
    with pytest.raises(DatasetError, match="is damaged"):
        load_kept_interactions(tmp_path, "recommendation", seed.lineage())
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.raises(DatasetError, match="is damaged"):
        load_kept_interactions(tmp_path, "recommendation", seed.lineage())
    with pytest.raises(DatasetError, match="flywheel train recommendation --data"):
        load_kept_interactions(tmp_path, "recommendation", Lineage(name="lost", fingerprint="1" * 64))


def test_numbers_of_user_and_moment_are_read_from_the_ranking() -> None:
    first, second = event("a", answer="1"), event("b", answer="2", minute=1)
    first.extra["input"]["user"]["features"] = {"age": 30.0}
    second.extra["input"]["context"] = {"hour": 12.0}
    interactions = with_rankings(EMPTY, [], [first, second])
    assert interactions.user_feature_names == ["age"]
    assert interactions.user_features.tolist() == [[30.0]]
    assert interactions.context_feature_names == ["hour"]
    hours = interactions.context_features[:, 0]
    assert np.isnan(hours).tolist() == [True] * 2 + [False] * 3  # two were seen in the first ranking


def test_a_history_item_that_was_disliked_was_not_chosen_and_a_purchase_weighs_more() -> None:
    history = [{"id": "f", "text": "item f", "event": "dislike"}, {"id": "e", "text": "item e", "event": "buy"}]
    events = with_rankings(EMPTY, [], [event("a", history=history)]).events
    before = events.take(events.before)
    assert before.chosen.tolist() == [False, True]
    assert before.weight[1] > before.weight[0] == 1.0


def test_rankings_are_added_to_the_events_of_their_users() -> None:
    old = Events.of([0, 1], [0, 0], [True, True], [1.0, 2.0])
    base = Interactions(
        "file", ["ann", "bob"], ["a"], ["item a"], old,
        context_features=np.array([[1.0], [2.0]]), context_feature_names=["hour"],
    )  # fmt: skip
    interactions = with_rankings(base, [], [event("b", history=[{"id": "a", "text": "item a"}])])
    assert interactions.fingerprint == base.fingerprint  # what the home keeps
    assert interactions.user_names == ["ann", "bob"]
    assert interactions.events.user.tolist() == [0] * 4 + [1]  # that ann chose a is known
    assert interactions.context_features[[0, -1], 0].tolist() == [1.0, 2.0]


def test_an_event_counts_by_its_value() -> None:
    rated = [event("a", "rating", value=3.9), event("b", "rating", value=4), event("c", "dwell", value=29)]
    more = [event("d", "dwell", value=31), event("e", "dislike")]
    assert seen(with_rankings(EMPTY, [], [*rated, *more])) == [
        ("a", False), ("c", False), ("e", False), ("b", True), ("d", True)
    ]  # fmt: skip
    twice = with_rankings(EMPTY, [], [event("a", "rating", value=1), event("a", "buy"), event("a")])
    assert seen(twice) == [("b", False), ("a", True)]
    assert twice.events.weight[-1] == 3.0


def test_two_values_are_two_trainings() -> None:
    def identity(*events: Sample) -> str:
        return str(with_rankings(EMPTY, [], events).added["samples_fingerprint"])

    assert identity(event("a", "rating", value=4)) != identity(event("a", "rating", value=5))


def test_an_event_that_means_nothing_is_not_learned() -> None:
    for odd in (event("a", "wish"), event("a", "rating"), event("a", "rating", value=-1), event("a", value=1)):
        assert unusable_reason(odd)
        assert len(with_rankings(EMPTY, [], [odd]).events) == 0


def test_a_history_counts_an_item_by_its_strongest_event_and_value() -> None:
    history = [
        {"id": "e", "text": "item e", "event": "view"}, {"id": "e", "text": None, "event": "buy", "value": None},
        {"id": "f", "text": None, "event": "rating", "value": 2.0}, {"id": "z", "text": None, "event": "later"},
    ]  # fmt: skip
    interactions = with_rankings(EMPTY, [], [event("a", history=history)])
    events = interactions.events.take(interactions.events.before)
    users, items = len(interactions.user_names), len(interactions.item_names)
    merged = histories_of(events.user, events.item, events.chosen, events.weight, users, items)
    known = {interactions.item_names[item]: at for at, item in enumerate(merged.item.tolist())}
    assert [bool(merged.chosen[known[name]]) for name in "efz"] == [True, False, True]
    assert merged.weight[known["e"]] == 3.0
    assert interactions.texts[interactions.item_names.index("z")] == ""
    later = with_rankings(EMPTY, [], [event("a", history=history), event("f", answer="2", ranked="f")])
    assert later.texts[later.item_names.index("f")] == "item f"
