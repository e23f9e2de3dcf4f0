"""The review list: uncertain, frequent and different texts first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.discovery.logged_texts import LoggedText
from models.discovery.review import cover, what_to_label
from models.discovery.word_vectors import similarities, word_vectors


def asked(text: str, score: float = 0.4, times: int = 1, *, new: bool = True) -> LoggedText:
    return LoggedText("id", 0, text, {"label": "a", "score": score}, "1", times=times, new=new)


def suggested(*texts: LoggedText, labelled: tuple[str, ...] = (), limit: int = 10) -> list[str]:
    return [suggestion.text.text for suggestion in what_to_label(texts, labelled, limit)]


def test_an_empty_log_has_nothing_to_label() -> None:
    assert suggested() == []


def test_the_uncertain_the_frequent_and_the_new_come_first() -> None:
    assert suggested(asked("sure of this", 0.99), asked("no idea about that", 0.4)) == [
        "no idea about that", "sure of this",
    ]  # fmt: skip
    assert suggested(asked("once"), asked("thrice", times=3)) == ["thrice", "once"]
    assert suggested(asked("known before", new=False), asked("first today")) == ["first today", "known before"]


def test_two_wordings_of_one_question_do_not_follow_each_other() -> None:
    found = suggested(
        asked("where is my parcel", 0.4), asked("where is my parcel now", 0.4), asked("delete the account", 0.52)
    )
    assert found.index("delete the account") == 1


def test_what_resembles_a_labelled_text_comes_last() -> None:
    texts = asked("where is my parcel", 0.4), asked("delete the account", 0.52)
    assert suggested(*texts, labelled=("where is my parcel now",)) == ["delete the account", "where is my parcel"]


def test_a_suggestion_says_why() -> None:
    prediction = {"label": "a", "score": 0.5, "top_k": [{"label": "a", "score": 0.5}, {"label": "b", "score": 0.4}]}
    one = LoggedText("id", 0, "where is my parcel", prediction, "1", times=9, new=False)
    (first, _) = what_to_label([one, asked("where is my parcel now", times=2)], (), 5)
    assert (first.similar, round(first.uncertainty, 6)) == (2, 0.9)
    assert first.reason == (
        "Unsure: a (0.50) or b (0.40). Asked 9 times; 2 other uncertain requests are like it. "
        "Asked before the champion was trained, too."
    )


def test_texts_without_words_or_spaces_are_suggested_too() -> None:
    texts = [asked(text) for text in ("!!!", "我的包裹在哪里", "我的包裹在哪里呢", "\u200b?", "1" * 9000)]
    assert set(suggested(*texts)) == {text.text for text in texts}
    vectors = word_vectors(["我的包裹在哪里", "我的包裹在哪里呢", "parcel"])
    assert similarities(vectors, vectors)[0].tolist() == pytest.approx([1.0, 0.8, 0.0], abs=0.2)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_lazy_choice_is_the_greedy_one(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.random((count, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike, weights = vectors @ vectors.T, rng.random(count).astype(np.float32)
    covered = rng.random(count).astype(np.float32) * 0.5
    found = cover(alike, weights, covered, count)
    assert sorted(found) == list(range(count))
    assert cover(alike, weights, covered, count // 2) == found[: count // 2]
    rest, now = set(range(count)), covered
    for row in found:
        gains = {other: float(weights @ np.maximum(alike[other] - now, 0)) for other in rest}
        assert gains[row] == pytest.approx(max(gains.values()), abs=1e-5)
        rest.discard(row)
        now = np.maximum(now, alike[row])
