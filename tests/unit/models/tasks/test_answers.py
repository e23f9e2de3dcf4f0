"""Answers are filled from the request, the text and the defaults; what nobody gives is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from models.tasks.answers import Answers, AnswersError, package_answers, read_answers
from models.tasks.intent import IntentOptions, IntentRequest
from tests.helpers.command import ROOT

DESK = """
language: en
slots: {customer_name: who writes, orders_url: where orders are}
defaults: {shop: Tents & Co, days: 30}
answers:
  track_order:
    en:
      - Order {order_id} is under {orders_url}.
      - Your order is under {orders_url}.
    de: Ihre Bestellung {order_id} steht unter {orders_url}.
    zh-Hant: 您的訂單
  greet: ["Hello from {shop}.", "Welcome to {shop}.", "Hi!"]
  policy: Return it within {days} days, {{really}}.
"""


def answers(tmp_path: Path, text: str = DESK) -> Answers:
    file = tmp_path / "answers.yaml"
    file.write_text(text, encoding="utf-8")
    return read_answers(file)


def test_filled_from_the_text_the_request_and_the_defaults(tmp_path: Path) -> None:
    desk = answers(tmp_path)
    url = {"orders_url": "https://a.example"}
    filled = desk.with_defaults(url).answer("track_order", "t", {"order_id": "7"})
    assert filled == ("Order 7 is under https://a.example.", ())
    assert desk.answer("policy", "t", {}) == ("Return it within 30 days, {really}.", ())
    assert (
        desk.with_defaults({"days": "20"}).answer("policy", "t", {"days": "14"}).text
        == "Return it within 14 days, {really}."
    )
    assert desk.with_defaults({"days": "20"}).answer("policy", "t", {}).text == "Return it within 20 days, {really}."


def test_what_is_lacking_is_named_and_stays_a_slot(tmp_path: Path) -> None:
    desk = answers(tmp_path)
    assert desk.answer("track_order", "t", {"order_id": "7"}) == ("Order 7 is under {orders_url}.", ("orders_url",))
    assert desk.answer("track_order", "t", {}, "de").missing == ("order_id", "orders_url")


def test_the_variant_that_lacks_fewest_slots_is_taken(tmp_path: Path) -> None:
    desk = answers(tmp_path).with_defaults({"orders_url": "u"})
    assert desk.answer("track_order", "t", {}) == ("Your order is under u.", ())


def test_the_text_decides_between_equal_variants(tmp_path: Path) -> None:
    desk = answers(tmp_path)
    texts = [f"hello {number}" for number in range(40)]
    given = [desk.answer("greet", text, {}).text for text in texts]
    assert set(given) == {"Hello from Tents & Co.", "Welcome to Tents & Co.", "Hi!"}
    assert given == [desk.answer("greet", text, {}).text for text in texts]
    assert desk.answer("greet", "\ud800", {}).text


@pytest.mark.parametrize(
    ("language", "begins"),
    [
        (None, "Your"),
        ("en-GB", "Your"),
        ("DE", "Ihre"),
        ("de-AT-1901", "Ihre"),
        ("zh-hant-tw", "您"),
        ("zh", "Your"),
        ("fr", "Your"),
    ],
)
def test_the_language_or_the_first_one(tmp_path: Path, language: str | None, begins: str) -> None:
    assert answers(tmp_path).answer("track_order", "t", {}, language).text.startswith(begins)


def test_a_value_is_never_read_as_a_template(tmp_path: Path) -> None:
    """Neither what a customer writes nor what a client sends opens another slot, however it looks."""
    hostile = "{orders_url} {0.__class__} {{x}} <b>ignore the above</b>"
    desk = answers(tmp_path).with_defaults({"orders_url": "u"})
    answer = desk.answer("track_order", "t", {"order_id": hostile})
    assert answer == (f"Order {hostile} is under u.", ())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("answers: {}", "answers"),
        ("answers: {a: []}", "answers.a"),
        ("answers: {a: ''}", "answers.a: has an empty answer"),
        ("answers: {a: 'x {order id}'}", "{order id} is no slot"),
        ("answers: {a: 'x {Order}'}", "{Order} is no slot"),
        ("answers: {a: 'x {0}'}", "{0} is no slot"),
        ("answers: {a: 'x {}'}", "{} is no slot"),
        ("answers: {a: 'x {a.b}'}", "{a.b} is no slot"),
        ("answers: {a: 'x {a!r}'}", "{a!r} is no slot"),
        ("answers: {a: 'x {a:>9999999999}'}", "is no slot"),
        ("answers: {a: 'x {order_id'}", "write {{ and }} for braces"),
        ("answers: {a: {english_language: x}}", "answers.a"),
        ("defaults: {a: '{b}', b: '{a}'}\nanswers: {x: '{a}'}", "a: '{b}' names a slot"),
        ("defaults: {a: 'see {a}'}\nanswers: {x: '{a}'}", "names a slot"),
        ("answers: {a: x, a: y}", "'a' is given twice"),
        ("answers: {a: {'': hi, en: hello}}", "answers.a: has answers in 'en' twice. Join the two"),
        ("answers: {a: {en-GB: x, en-gb: y}}", "answers.a: has answers in 'en-gb' twice"),
        ("reply: {a: x}", "reply: Extra inputs are not permitted"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(AnswersError) as raised:
        answers(tmp_path, text)
    assert sentence in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "answers.yaml"))


def test_a_slot_that_nothing_can_fill_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("answers: {a: 'order {oder_id} under {orders_url}'}", encoding="utf-8")
    with pytest.raises(ValidationError, match=r"answers.a has the slot \{oder_id\}, which is no type of entity"):
        IntentOptions(answers=tmp_path / "a.yaml", defaults={"orders_url": "u"})  # type: ignore[arg-type]
    (tmp_path / "b.yaml").write_text("slots: {oder_id: o}\nanswers: {a: '{oder_id} {order_id}'}", encoding="utf-8")
    assert IntentOptions(answers=tmp_path / "b.yaml").answers is not None  # type: ignore[arg-type]


def test_the_example_of_a_deployment() -> None:
    options = IntentOptions.model_validate(
        {"answers": str(ROOT / "deploy" / "answers.example.yaml"), "defaults": {"orders_url": "https://a.example"}}
    )
    assert options.answers
    desk = options.answers.with_defaults(options.defaults)
    assert desk.answer("track_order", "t", {}).text == "Your order is on its way; see https://a.example."
    assert desk.answer("check_refund_policy", "t", {}).text == "You can return items within 30 days."


def test_defaults_of_the_configuration() -> None:
    assert IntentOptions(defaults={"refund_days": 30}).defaults == {"refund_days": "30"}  # type: ignore[dict-item]
    with pytest.raises(ValidationError, match=r"defaults.a: '\{b\}/x' names a slot"):
        IntentOptions(defaults={"a": "{b}/x"})
    with pytest.raises(ValidationError):
        IntentOptions(defaults={"Orders URL": "u"})


@pytest.mark.parametrize(
    "body",
    [
        {"slots": {"order_id": 7}},
        {"slots": {"order_id": ""}},
        {"slots": {"order_id": " \n"}},
        {"slots": {"Order": "7"}},
        {"slots": {"a": "x" * 1001}},
        {"slots": {f"a{number}": "x" for number in range(65)}},
        {"slots": ["order_id"]},
        {"language": "english (GB)"},
        {"language": ""},
    ],
)
def test_bad_slots_and_languages_are_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        IntentRequest.model_validate({"text": "hi", **body})


def test_the_package_s_answers_can_be_sent_to_a_replica() -> None:
    sent = pickle.loads(pickle.dumps(package_answers()))
    assert sent.answer("track_order", "t", {"order_id": "7"}).text.startswith("You can see where order 7 is")
