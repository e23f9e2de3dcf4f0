"""What a deployment's file of entities adds, and what is wrong with a bad one."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest

from models.entities import EntitiesError, Registry, engine_of, package_registry, read_registry
from models.feedback.pii import KINDS, Redactor
from tests.helpers.command import ROOT

SHOP = r"""
day_first: false
types:
  product:
    words: [Trail-Mug 2, {name: Summit Tent, aliases: [the summit, ST-40]}, 登山杖, 4711]
  customer_id:
    personal: true
    replacement: "[customer]"
    patterns: ['C-\d{6}', {regex: '\d{8}', near: true}]
    context: [customer number, kundennummer]
  ean:
    answer: true
    patterns: {regex: '\d{13}', check: ean}
  order_id:
    patterns: ['SHOP\d{4}']
    context: [basket]
"""


def registry(tmp_path: Path, text: str) -> Registry:
    file = tmp_path / "entities.yaml"
    file.write_text(text, encoding="utf-8")
    return read_registry(file)


@pytest.fixture
def shop(tmp_path: Path) -> Registry:
    return registry(tmp_path, SHOP)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a trail mug 2 and a TRAIL-MUG 2", [("product", "Trail-Mug 2")] * 2),
        ("is the ST-40 a tent? Summit Tents leak", [("product", "Summit Tent")] * 2),
        ("请问登山杖还有吗", [("product", "登山杖")]),
        ("a bottle of 4711", [("product", "4711")]),
        ("I am c-123456!", [("customer_id", "c-123456")]),
        ("Kundennummer 30031177", [("customer_id", "30031177")]),
        ("the number 30031177 tells nothing", []),
        ("the mug 4006381333931 is chipped, not 4006381333932", [("ean", "4006381333931")]),
        ("in my basket 55102", [("order_id", "55102")]),
        ("shop1234 and SHOP12345", [("order_id", "shop1234")]),
        ("due 05/03/2026", [("date", "2026-05-03")]),
        ("Summit Tentacles", []),
    ],
)
def test_own_types_words_and_context(shop: Registry, text: str, expected: list[tuple[str, str]]) -> None:
    assert [(one.type, one.value) for one in engine_of(shop).entities(text)] == expected


def test_own_personal_types_are_replaced_in_what_is_stored(shop: Registry) -> None:
    redactor = Redactor(engine_of(shop))
    assert redactor.redact("I am C-123456, ann@example.com") == "I am [customer], [email]"
    assert redactor.redact("no digits here") == "no digits here"
    assert redactor.redact("Trail-Mug 2") == "Trail-Mug 2"


def test_a_placeholder_is_not_replaced_again(tmp_path: Path) -> None:
    redactor = Redactor(engine_of(registry(tmp_path, "types: {vip: {words: [vip, Ann Smith], personal: true}}")))
    assert redactor.redact("VIP ann smith") == "[vip] [vip]"
    assert redactor.redact("[vip] [vip]") == "[vip] [vip]"


def test_words_from_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "products.txt").write_text("# ours\nTrail Mug\n\nSummit Tent\n", encoding="utf-8")
    found = engine_of(registry(tmp_path, "types: {product: {words: products.txt}}")).entities("a trail mug")
    assert [one.value for one in found] == ["Trail Mug"]


def test_the_example_of_a_deployment() -> None:
    found = engine_of(read_registry(ROOT / "deploy" / "entities.example.yaml")).entities(
        "C-123456: summit tent SHOP123456"
    )
    assert [(one.type, one.value) for one in found] == [
        ("customer_id", "C-123456"),
        ("product", "Summit Tent 2"),
        ("order_id", "SHOP123456"),
    ]


def test_a_registry_can_be_sent_to_a_replica(shop: Registry) -> None:
    sent = pickle.loads(pickle.dumps(shop))
    assert engine_of(sent).entities("C-123456") == engine_of(shop).entities("C-123456")


def test_the_package_has_the_types_of_the_contract() -> None:
    assert set(package_registry().answered) == {
        "order_id", "invoice_id", "email", "phone", "amount", "date", "time", "product"
    }  # fmt: skip
    assert KINDS == ("iban", "email", "card", "ip", "id", "wallet", "secret", "phone", "account", "name")


def test_a_slow_pattern_of_a_deployment_is_linear(tmp_path: Path) -> None:
    """In Python's own engine this one takes years."""
    engine = engine_of(registry(tmp_path, r"types: {bad: {patterns: ['(a+)+b', '(x|x)*y1']}}"))
    begun = time.process_time()
    assert engine.entities("a" * 4000 + " 1") == []
    engine.personal("ax" * 10_000)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "keys with values are expected"),
        ("- a", "keys with values are expected"),
        ("types: {a: {patterns: [x}", "line 1: not valid YAML"),
        ("types: {product: {word: [a b]}}", "types.product.word: Extra inputs are not permitted"),
        ("types: {Product: {words: [a b]}}", "types.Product"),
        ("types: {product: {words: ['!']}}", "fewer than two letters or digits"),
        ("types: {product: {words: [a]}}", "fewer than two letters or digits"),
        ("types: {product: {words: missing.txt}}", "Name a file with a word a line"),
        ("types: {mine: {personal: true}}", "needs patterns or words"),
        ("types: {mine: {patterns: ['(']}}", "no regular expression of RE2"),
        (r"types: {mine: {patterns: ['(a)\1']}}", "neither look-around nor back references"),
        ("types: {mine: {patterns: ['(?<=a)b']}}", "neither look-around nor back references"),
        ("types: {mine: {patterns: ['a*']}}", "is found in an empty text"),
        ("types: {mine: {patterns: [{regex: a1, check: os.system}]}}", "there is no check 'os.system'"),
        ("types: {mine: {patterns: [{regex: a1, near: true}]}}", "no context words to be near"),
        (
            "types: {mine: {patterns: [" + ", ".join(["'(\\w{90}\\d{90}){3}1'"] * 200) + "]}}",
            "the patterns cannot be joined",
        ),
        (r"types: {mine: {patterns: ['(\w{500}\d{500}){9}1']}}", "types.mine"),
        ("types: {email: {personal: false}}", "always replaced in what is stored"),
        ("types: {mine: {patterns: [a1], replacement: mine}}", "types.mine.replacement"),
        ("types: {mine: {patterns: [a1]}, mine: {patterns: [b1]}}", "'mine' is given twice"),
        ("types: " + "[" * 1000 + "]" * 1000, "nested too deeply"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(EntitiesError) as raised:
        registry(tmp_path, text)
    assert sentence in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "entities.yaml"))


def test_a_word_of_two_types_is_told(tmp_path: Path) -> None:
    notes = registry(tmp_path, "types: {product: {words: [Summit]}, model: {words: [summit]}}").notes
    assert len(notes) == 1
    assert "'summit' is a word of model and of product" in notes[0]
