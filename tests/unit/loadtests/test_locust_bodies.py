"""What the load tests send is what the server takes, and is varied enough that the answer cache does not answer it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from loadtests.locust.bodies import headlines, messages, rankings, seed
from loadtests.locust.bodies.headlines import Headlines
from loadtests.locust.bodies.messages import Messages
from loadtests.locust.bodies.rankings import MAX_CANDIDATES, MIN_CANDIDATES, SHOWN, Rankings
from models.tasks.intent import IntentRequest
from models.tasks.recommendation import RankRequest
from models.tasks.sentiment import SentimentRequest
from serve.api.knowledge import Search
from serve.feedback.intake import Feedback, FeedbackBatch

DRAWS = 500


def test_messages_are_valid_requests() -> None:
    drawn = Messages(1)
    for _ in range(DRAWS):
        _, name = drawn.customer()
        for message in drawn.conversation(name):
            IntentRequest.model_validate(messages.predict(message, name))
            IntentRequest.model_validate(messages.predict(message, name, knowledge=True))
            Search.model_validate(messages.search(message))


def test_an_agent_corrects_with_a_label_of_the_corpus() -> None:
    drawn = Messages(2)
    labels = {label for _, label in seed.labelled("intent")}
    found = [drawn.message("Ann").label for _ in range(DRAWS)]
    assert set(found) <= labels
    assert len(set(found)) > 20
    for label in filter(None, found):
        Feedback.model_validate(messages.correction("a" * 32, label, consent=True))


def test_documents_are_valid_requests_with_ids_of_their_own() -> None:
    drawn = Headlines(1)
    bulks = [drawn.bulk() for _ in range(20)]
    for body in bulks:
        SentimentRequest.model_validate(body)
        assert 16 <= len(body["documents"]) <= 64
    SentimentRequest.model_validate(drawn.document())
    ids = [document["document_id"] for body in bulks for document in body["documents"]]
    assert len(set(ids)) == len(ids)
    assert set(ids).isdisjoint(document["document_id"] for document in Headlines(1).bulk()["documents"])


def test_visits_are_valid_requests() -> None:
    drawn = Rankings(1)
    for _ in range(DRAWS):
        request = drawn.visit().request
        RankRequest.model_validate(request)
        assert MIN_CANDIDATES <= len(request["candidates"]) <= MAX_CANDIDATES


def test_clicks_are_valid_feedback_and_go_to_what_the_visitor_likes() -> None:
    drawn = Rankings(2)
    category = {item["id"]: item["category"] for item in seed.items()}
    clicked: Counter[bool] = Counter()
    shown_of: Counter[bool] = Counter()
    for _ in range(4 * DRAWS):
        visit = drawn.visit()
        shown = [candidate["id"] for candidate in visit.request["candidates"][:SHOWN]]
        shown_of.update(category.get(item) in visit.favourites for item in shown)
        events = drawn.events(visit, shown)
        clicked.update(category.get(item) in visit.favourites for item, _ in events)
        assert {item for item, _ in events} <= set(shown)
        if events:
            batch = FeedbackBatch.model_validate(rankings.corrections("a" * 32, events, consent=True))
            for correction in batch.feedback:
                Feedback.model_validate(correction)
    assert clicked[True] / shown_of[True] > 2 * clicked[False] / shown_of[False]


@pytest.mark.parametrize("drawn", [Messages, Headlines, Rankings])
def test_the_same_seed_draws_the_same_requests(drawn: Any) -> None:
    assert texts(drawn(3)) == texts(drawn(3))
    assert texts(drawn(3)) != texts(drawn(4))


@pytest.mark.parametrize(("drawn", "share"), [(Messages, messages.COMMON), (Headlines, headlines.SYNDICATED)])
def test_most_texts_are_sent_once(drawn: Any, share: float) -> None:
    """Of 2,000 texts of twenty users; what repeats is what repeats in life, see docs/load.md."""
    sent = [text for number in range(20) for text in texts(drawn(number))[:100]]
    keys = Counter(re.sub(r"\W+", " ", text.casefold()) for text in sent)
    repeated = len(sent) - len(keys)
    assert 0.01 < repeated / len(sent) < share


def texts(drawn: Any) -> list[str]:
    """What a user sends, 100 texts or more."""
    if isinstance(drawn, Messages):
        return [drawn.message("Ann").text for _ in range(100)]
    if isinstance(drawn, Headlines):
        return [drawn.text() for _ in range(100)]
    return [candidate["text"] for _ in range(10) for candidate in drawn.visit().request["candidates"]]
