"""The seed corpora hold what their README says, and no holdout text was seen in training."""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz import fuzz, process, utils

from models.data.dataset import SEED, load_dataset
from models.data.seed import simulate
from models.entities import package_registry
from models.tasks.answers import read_answers
from models.tasks.intent import OUT_OF_SCOPE

INTENTS = {
    "cancel_order", "change_order", "change_shipping_address", "check_cancellation_fee", "check_invoice",
    "check_payment_methods", "check_refund_policy", "complaint", "contact_customer_service",
    "contact_human_agent", "create_account", "delete_account", "delivery_options", "delivery_period",
    "edit_account", "get_invoice", "get_refund", "newsletter_subscription", "payment_issue", "place_order",
    "recover_password", "registration_problems", "review", "set_up_shipping_address", "switch_account",
    "track_order", "track_refund",
}  # fmt: skip


def rows(name: str) -> list[dict[str, str]]:
    with (SEED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_every_intent_has_enough_utterances() -> None:
    counts = Counter(row["label"] for row in rows("intent.csv"))
    assert len(INTENTS) == 27
    assert set(counts) == INTENTS | {OUT_OF_SCOPE}
    assert min(counts.values()) >= 60
    assert counts[OUT_OF_SCOPE] >= 300


def test_every_intent_has_an_answer() -> None:
    answers = read_answers(SEED / "answers.yaml")
    assert set(answers.templates) == INTENTS
    assert list(answers.unknown_slots(set(package_registry().answered))) == []


def test_sentiment_has_enough_headlines_of_enough_topics() -> None:
    labels = Counter(row["label"] for row in rows("sentiment.csv"))
    topics = {label: {row["topic"] for row in rows("sentiment.csv") if row["label"] == label} for label in labels}
    assert set(labels) == {"positive", "neutral", "negative"}
    assert min(labels.values()) >= 400
    assert min(map(len, topics.values())) >= 12
    assert all("" not in names for names in topics.values())


# fmt: off
KNOWN = (
    "Adidas|Airbus|Alibaba|Amazon|Apple|AstraZeneca|Aviva|Barclays|Bayer|BHP|BMW|Boeing|BP|Chevron|Cisco|Citigroup|"
    "Coinbase|Diageo|Disney|easyJet|Ericsson|Exxon|Facebook|Ferrari|Finnair|Gazprom|Glencore|GlaxoSmithKline|Goldman|"
    "Google|HSBC|Huawei|IBM|Ikea|Intel|JPMorgan|Kesko|Lloyds|Lufthansa|Maersk|McDonald|Merck|Meta|Microsoft|Morrisons|"
    "Netflix|Nike|Nokia|Novartis|Nvidia|Oracle|Outokumpu|PayPal|Pepsi|Petrobras|Pfizer|Porsche|Primark|Qantas|RBS|"
    "Renault|Roche|Rolls-Royce|Ryanair|Sainsbury|Samsung|Sanofi|Santander|Siemens|Sony|Spotify|Starbucks|Stockmann|"
    "Tesco|Tesla|Toyota|Twitter|Uber|UBS|Unilever|Vodafone|Volkswagen|Volvo|Walmart|Wartsila|WeWork|Yahoo"
)
TICKERS = (
    "AAPL|AMC|AMD|AMZN|BABA|BAC|COIN|CVNA|DIS|F|GE|GILD|GM|GME|GOOG|GOOGL|HD|IBM|INTC|JPM|LOW|META|MSFT|NFLX|NVDA|PFE|"
    "PLTR|QQQ|SNAP|SPOT|SPY|T|TSLA|UBER|WMT|XOM"
)
# fmt: on


def test_no_headline_is_about_a_company_that_there_is() -> None:
    known = re.compile(rf"\b(?:{KNOWN})\b|\$(?:{TICKERS})\b")
    assert [row["text"] for row in rows("sentiment.csv") if known.search(row["text"])] == []


@pytest.mark.parametrize("task", ["intent", "sentiment"])
def test_every_row_has_a_split_and_every_label_is_held_out(task: str) -> None:
    corpus = rows(f"{task}.csv")
    assert {row["split"] for row in corpus} - {"validation"} == {"train", "holdout"}
    assert {row["label"] for row in corpus if row["split"] == "holdout"} == {row["label"] for row in corpus}


@pytest.mark.parametrize("task", ["intent", "sentiment"])
def test_no_holdout_text_is_nearly_a_training_text(task: str) -> None:
    dataset = load_dataset(task)
    train, held_out = ([utils.default_process(text) for text, _ in part] for part in (dataset.train, dataset.holdout))
    likeness = process.cdist(held_out, train, scorer=fuzz.token_sort_ratio, score_cutoff=90, dtype=np.float32)
    near = [(dataset.holdout[i].text, dataset.train[j].text, likeness[i, j]) for i, j in np.argwhere(likeness >= 90)]
    assert near == []


@pytest.mark.parametrize("task", ["intent", "sentiment"])
def test_no_text_has_two_labels(task: str) -> None:
    labels: dict[str, set[str]] = {}
    for row in rows(f"{task}.csv"):
        labels.setdefault(" ".join(row["text"].lower().split()), set()).add(row["label"])
    assert {text: found for text, found in labels.items() if len(found) > 1} == {}


def test_the_catalogue_is_complete() -> None:
    items = rows("catalogue.csv")
    assert len(items) >= 300
    assert len({item["id"] for item in items}) == len(items)
    assert all(item[field].strip() for item in items for field in ("title", "description", "category", "price"))
    assert all(float(item["price"]) > 0 for item in items)
    assert {item["category"] for item in items} == set(simulate.category_names())


def test_the_behaviour_is_of_enough_users_and_of_items_in_the_catalogue() -> None:
    impressions = rows("behaviour.csv")
    assert len({row["user_id"] for row in impressions}) >= 300
    assert {row["item_id"] for row in impressions} <= {item["id"] for item in rows("catalogue.csv")}
    assert {row["event"] for row in impressions} == {"view", "click", "buy"}
    assert {row["split"] for row in impressions} == {"train", "holdout"}


def test_the_simulation_writes_the_same_bytes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SEED / "catalogue.csv", tmp_path)
    monkeypatch.setattr(simulate, "HERE", tmp_path)
    simulate.main()
    assert (tmp_path / "behaviour.csv").read_bytes() == (SEED / "behaviour.csv").read_bytes()
