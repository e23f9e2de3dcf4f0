"""Texts that will be cut and languages that the base does not know are told before a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.base_model import DEFAULT_BASE
from models.data.dataset import load_dataset
from models.data.token_checks import token_findings

GERMAN = [
    "Wo bleibt meine Bestellung? Ich warte seit zwei Wochen auf die Lieferung.",
    "Ich möchte meine Rechnung als PDF herunterladen.",
    "Bitte stornieren Sie den Vertrag zum nächstmöglichen Zeitpunkt",
]
CHINESE = ["我的订单在哪里？我已经等了两个星期。", "如何重置我的密码？"]
RUSSIAN = ["Где мой заказ? Я жду уже две недели.", "Как изменить пароль от личного кабинета?"]


@pytest.mark.parametrize("task", ["intent", "sentiment"])
def test_english_texts_are_not_suspected(task: str) -> None:
    texts = [example.text for example in load_dataset(task).train]
    assert token_findings(texts, DEFAULT_BASE, 128) == []


@pytest.mark.parametrize("texts", [GERMAN, CHINESE, RUSSIAN], ids=["German", "Chinese", "Russian"])
def test_a_language_that_the_base_does_not_know_is_suspected(texts: list[str]) -> None:
    english = [example.text for example in load_dataset("intent").train[:30]]
    (finding,) = token_findings([*texts * 2, *english], DEFAULT_BASE, 128)
    assert (finding.kind, finding.severity) == ("language", "warning")
    assert "--base" in finding.action
    assert not token_findings([*texts[:1], *english], DEFAULT_BASE, 128)


def test_texts_that_are_cut_are_told() -> None:
    texts = ["a word " * 5] * 95 + ["a word " * 40] * 5
    (finding,) = token_findings(texts, DEFAULT_BASE, 32)
    assert (finding.kind, finding.severity, finding.count) == ("texts_cut", "note", 5)
    assert finding.sentence.startswith("5.0% of the training texts have more than 32 tokens")
    assert token_findings([*texts, "a" * 1_000_000] * 10, DEFAULT_BASE, 32)[0].count == 60


def test_a_text_of_exactly_as_many_tokens_is_not_cut() -> None:
    assert token_findings(["word " * 30], DEFAULT_BASE, 32) == []
    assert token_findings(["word " * 31], DEFAULT_BASE, 32)[0].kind == "texts_cut"


def test_a_base_without_a_tokenizer_on_disk_is_not_asked(tmp_path: Path) -> None:
    assert token_findings(GERMAN, str(tmp_path), 128) == token_findings(GERMAN, "some/hub-name", 128) == []
