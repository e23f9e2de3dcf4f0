"""What corrections are learned from, each step by itself."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from models.curation.pipeline import Context, Curated, Rules, curate
from models.curation.quotas import quotas
from models.curation.similarity import SimilarityIndex, differ_by_typos, fingerprints
from models.curation.types import Embed, Group
from models.data.dataset import Example, load_dataset
from models.feedback.pii import redact
from models.feedback.types import Sample
from models.text import words

START = datetime(2026, 1, 1, tzinfo=UTC)
TRUSTING = Rules(trust={"desk": 1.0})


def not_needed(texts: Sequence[str]) -> NDArray[np.float32]:
    raise AssertionError("so few samples are not searched for label errors")


def given(*rows: tuple[str, ...], start: int = 1) -> list[Sample]:
    """(text, label), with source and user where they matter; ids from `start`, a second apart."""
    return [
        Sample(
            id=start + i,
            task="intent",
            text=row[0],
            label=row[1],
            source=row[2] if len(row) > 2 else "app",
            user=row[3] if len(row) > 3 else None,
            at=START + timedelta(seconds=start + i),
        )
        for i, row in enumerate(rows)
    ]


def context(
    labels: str = "a b c",
    training: Iterable[tuple[str, str]] = (),
    holdout: Sequence[str] = (),
    new_labels: bool = False,
    embed: Embed = not_needed,
    clean: Callable[[str], str] = str,
) -> Context:
    corpus = [Example(text, label) for text, label in training]
    return Context(frozenset(labels.split()), corpus, holdout, embed, clean, new_labels)


def kept(curated: Curated) -> list[int]:
    return [sample.id for sample in curated.kept]


def test_nothing_gives_nothing() -> None:
    curated = curate([], context(), Rules())
    assert (curated.kept, curated.dropped, curated.quarantined, curated.deferred) == ([], {}, {}, {})
    assert curated.report.markdown().startswith("# Curation\n\n0 samples received, 0 kept.")


def test_ids_that_repeat_are_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        curate(given(("x", "a")) * 2, context(), Rules())


def test_samples_without_text_or_label_and_unknown_labels_are_dropped() -> None:
    curated = curate(given((" ", "a"), ("where is it", ""), ("open it", "z"), ("close it", "a")), context(), Rules())
    assert kept(curated) == [4]
    assert curated.dropped == {1: "without text or label", 2: "without text or label", 3: "unknown label"}


def test_a_new_label_waits_until_it_has_enough_different_texts() -> None:
    some = ["freeze my account", "block the login now", "someone stole my phone", "stop every payment"]
    rules = Rules(min_new_label=5)
    nine = given(*[(text, "freeze") for text in some], *[(some[0].upper() + "!", "freeze")] * 5)
    waiting = curate(nine, context(new_labels=True), rules)
    assert waiting.deferred == dict.fromkeys(range(1, 5), "new label with too few examples (4)")
    assert len(waiting.dropped) == 5
    enough = curate([*nine, *given(("put a hold on things", "freeze"), start=20)], context(new_labels=True), rules)
    assert kept(enough) == [1, 2, 3, 4, 20]
    assert enough.report.new_labels == {"freeze": 5}


def test_duplicates_are_merged_into_the_most_trusted_then_the_earliest() -> None:
    rows = given(
        ("Where is my order?", "a"), ("where is MY order", "a", "desk"), ("where  is my order !", "a", "desk"),
        ("something else entirely", "a"),
    )  # fmt: skip
    curated = curate(rows, context(), TRUSTING)
    assert kept(curated) == [2, 4]
    assert curated.dropped == {1: "duplicate of feedback 2", 3: "duplicate of feedback 2"}


def test_near_duplicates_of_one_label_are_merged() -> None:
    rows = given(
        ("where is the parcel that I ordered last week", "a"),
        ("the parcel that I ordered last week, where is it", "a"),
        ("where is the parcel that I ordered last weeks", "a"),
        ("send it back to the shop", "a"),
    )
    curated = curate(rows, context(), Rules())
    assert kept(curated) == [1, 4]
    assert set(curated.dropped.values()) == {"near duplicate of feedback 1"}


def test_texts_that_differ_by_a_word_do_not_contradict() -> None:
    rows = given(
        ("Operating profit rose to EUR 13.1 mn from EUR 8.7 mn", "a"),
        ("Operating profit fell to EUR 13.1 mn from EUR 8.7 mn", "b"),
        ("Operating profit rose to EUR 8.7 mn from EUR 13.1 mn", "c"),
        ("great :)", "a"),
        ("great :(", "b"),
    )
    assert kept(curate(rows, context(), Rules())) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("other", ["WHERE is my parcel", "where is my parcell"], ids=["same", "typo"])
class TestContradictions:
    TEXT = "Where is my parcel?"

    def test_trust_decides(self, other: str) -> None:
        rows = given((self.TEXT, "a", "app", "u1"), (other, "b", "desk"), (self.TEXT, "a", "app", "u2"))
        curated = curate(rows, context(), TRUSTING)
        assert kept(curated) == [2]
        assert "outvoted by feedback 2" in curated.dropped.values()

    def test_then_the_majority(self, other: str) -> None:
        rows = given((self.TEXT, "a", "app", "u1"), (other, "b", "app", "u3"), (self.TEXT, "a", "app", "u2"))
        curated = curate(rows, context(), Rules())
        assert kept(curated) == [1]
        assert curated.dropped[2] == "outvoted by feedback 1"

    def test_saying_it_often_is_no_majority(self, other: str) -> None:
        rows = given((self.TEXT, "a", "app", "u1"), *[(other, "b", "app", "u2")] * 5)
        curated = curate(rows, context(), Rules())
        assert kept(curated) == []
        assert curated.quarantined[1].startswith("undecided contradiction with feedback")

    def test_a_tie_is_for_a_person(self, other: str) -> None:
        curated = curate(given((self.TEXT, "a"), (other, "b", "web")), context(), Rules())
        assert curated.quarantined == {
            1: "undecided contradiction with feedback 2",
            2: "undecided contradiction with feedback 1",
        }


def test_what_the_corpus_says_is_known_and_what_contradicts_it_needs_more_trust() -> None:
    corpus = [("cancel it", "a")]
    curated = curate(given(("Cancel it!", "a"), ("cancel it", "b")), context(training=corpus), Rules())
    assert curated.dropped == {1: "known"}
    assert curated.quarantined == {2: "contradicts the training corpus"}
    alone = curate(given(("cancel it", "b", "desk")), context(training=corpus), TRUSTING)
    assert alone.quarantined == {1: "contradicts the training corpus"}
    together = curate(given(("cancel it", "b", "desk"), ("cancel it", "b")), context(training=corpus), TRUSTING)
    assert kept(together) == [1]


def test_nothing_that_resembles_the_holdout_is_learned() -> None:
    held_out = ["where is the parcel that I ordered last week"]
    rows = given(
        (held_out[0].upper(), "a"), ("the parcel I ordered last week, where is it that", "b"), ("pay now", "a")
    )
    curated = curate(rows, context(holdout=held_out), Rules())
    assert kept(curated) == [3]
    assert set(curated.dropped.values()) == {"resembles the holdout"}


def capped(rows: list[Sample], rules: Rules) -> dict[str, int]:
    left = quotas([Group(sample) for sample in rows], context(), rules).kept
    sources = [group.lead.source for group in left]
    return {source: sources.count(source) for source in sorted(set(sources))}


def many(source: str, count: int, start: int, user: str | None = None) -> list[Sample]:
    return [
        replace(s, source=source, user=user) for s in given(*[("t", "ab"[i % 2]) for i in range(count)], start=start)
    ]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(allowance_of_a_source=10), {"app": 30, "web": 30}),
        (Rules(allowance_of_a_source=50), {"app": 50, "web": 30}),
        (Rules(allowance_of_a_source=10, trust={"app": 1.0}), {"app": 100, "web": 30}),
        (Rules(allowance_of_a_source=10, max_share_of_a_source=1), {"app": 100, "web": 30}),
        (Rules(allowance_of_a_source=10, max_share_of_a_source=0.25), {"app": 10, "web": 10}),
        (Rules(allowance_of_a_source=0, max_share_of_a_source=0.25), {}),
    ],
)  # fmt: skip
def test_a_source_gives_at_most_its_share(rules: Rules, expected: dict[str, int]) -> None:
    assert capped(many("app", 100, 1) + many("web", 30, 200), rules) == expected


def test_a_small_queue_of_one_source_is_learned_from_and_a_large_one_waits() -> None:
    assert capped(many("app", 100, 1), Rules()) == {"app": 100}
    over = quotas([Group(sample) for sample in many("app", 1100, 1)], context(), Rules())
    assert len(over.kept) == 1000
    assert {decision.state for decision in over.removed} == {"deferred"}
    assert {group.lead.label for group in over.kept} == {"a", "b"}
    assert min(decision.sample for decision in over.removed) > 1000, "the oldest go first"


def test_a_user_gives_at_most_his_share() -> None:
    rows = many("app", 100, 1, "u1") + many("app", 100, 200)
    left = quotas([Group(sample) for sample in rows], context(), Rules(allowance_of_a_user=5)).kept
    assert sum(group.lead.user == "u1" for group in left) == 11, "a tenth of what stays"


def test_personal_data_that_was_missed_is_redacted_and_counted_but_never_shown() -> None:
    rows = given(("write to anna.berg@example.org please", "a"), ("and then?", "b", "a|b ops@example.org"))
    curated = curate(rows, context(clean=redact), Rules())
    assert curated.kept[0].text == "write to [email] please"
    report = curated.report.to_dict()
    assert report["personal_data"] == {"samples": 1, "kinds": {"email": 1}, "examples": [1]}
    for page in (curated.report.markdown(), json.dumps(report)):
        assert "example.org" not in page
        assert "and then" not in page
    assert "a\\|b [email]" in curated.report.markdown()


def test_the_words_of_a_text() -> None:
    assert words("Can’t  LOG-in!!") == words("cant log in") == ("cant", "log", "in")
    assert words("-3.5 %") != words("3.5 %") != words("35 %")
    assert words("?!") == ("?!",)
    assert words("it broke 😡") != words("it broke 😀")
    assert differ_by_typos(words("my paymnet failed"), words("my payment failed"))
    for one, other in [
        ("unable to pay", "enable to pay"),
        ("order 88231", "order 88232"),
        ("我可以付款", "我不可以付款"),
    ]:
        assert not differ_by_typos(words(one), words(other))


def test_the_index_finds_what_comparing_all_finds() -> None:
    from rapidfuzz import fuzz

    texts = [words(example.text) for example in load_dataset("intent").train[:600]]
    chosen = random.Random(0)
    changed = [tuple(chosen.sample([*text, "please"], len(text) + 1)) for text in texts[::3] if len(text) > 6]
    index = SimilarityIndex(90)
    for position, fingerprint in enumerate(fingerprints(texts)):
        index.add(position, fingerprint)
    keys = [" ".join(sorted(text)) for text in texts]
    missed = found = 0
    for text, fingerprint in zip(changed, fingerprints(changed), strict=True):
        truth = {at for at, key in enumerate(keys) if fuzz.ratio(key, " ".join(sorted(text))) >= 90}
        got = set(index.similar(fingerprint))
        assert got <= truth
        found += bool(got)
        missed += bool(truth) and not got
    assert found > 20
    assert missed <= found * 0.02


def test_a_new_label_is_written_as_a_training_file_s_labels_are() -> None:
    texts = ("put a hold on it", "pause my plan", "suspend everything", "stop for a month", "keep it on ice", "not now")
    rows = zip(texts, ["freeze", "freeze ", "free\u200bze"] * 2, strict=True)
    curated = curate(given(*rows), context(new_labels=True), Rules(min_new_label=5))
    assert curated.report.new_labels == {"freeze": 6}
    assert {sample.label for sample in curated.kept} == {"freeze"}


def test_a_label_that_the_champion_writes_differently_stays() -> None:
    old = replace(context(), labels=frozenset({"open ", "close"}))
    assert kept(curate(given(("do open it", "open ")), old, Rules())) == [1]


def test_with_very_many_labels_label_errors_are_judged_on_a_bounded_replay() -> None:
    class Read(Exception):
        pass

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        raise Read(len(texts))

    corpus = [(f"text {i} of {label}", f"l{label}") for label in range(2000) for i in range(12)]
    labels = " ".join(f"l{i}" for i in range(2000))
    samples = given(*((f"an unheard of thing {i} {i * i}", f"l{i}") for i in range(60)))
    with pytest.raises(Read) as read:
        curate(samples, context(labels, corpus, embed=embed), Rules(near_duplicate=100))
    assert read.value.args[0] <= 10_000 + len(samples)
