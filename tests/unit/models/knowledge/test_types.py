"""Which entries are taken, and when two are the same one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.knowledge.types import MAX_ANSWER, Entry, id_of, primary_language

GOOD = {"question": "how do I return it?", "answer": "In 30 days."}


def test_an_entry_without_an_id_has_that_of_its_question() -> None:
    first = Entry.model_validate(GOOD)
    assert first.key == Entry.model_validate(GOOD | {"question": "How do I  return it?", "answer": "Never."}).key
    assert first.key != Entry.model_validate(GOOD | {"language": "en"}).key
    assert id_of("a", "en-GB") == id_of("a", "EN")
    assert first.key == Entry.model_validate(GOOD | {"id": first.key}).key  # what was exported is taken back


@pytest.mark.parametrize("id_", ["faq-1", "1", "Größe.2", "a" * 200, "a:b@c+d_e", "質問1"])
def test_ids(id_: str) -> None:
    assert Entry.model_validate(GOOD | {"id": id_}).key == id_


@pytest.mark.parametrize(
    "id_",
    ["", " ", "a b", "a/b", "../etc/passwd", "..", "a\nb", "a\x00", "a?b", "a#b", "a%2Fb", "-rf", "_x", "<b>",
     "a" * 201, "a\\b", "a'--", "\u202eabc", "\ud800"],
)  # fmt: skip
def test_hostile_ids(id_: str) -> None:
    with pytest.raises(ValidationError, match="cannot be an id"):
        Entry.model_validate(GOOD | {"id": id_})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answer": ""}, "is empty"),
        ({"answer": " \n\u200b"}, "is empty"),
        ({"question": "\t"}, "is empty"),
        ({"answer": "a" * (MAX_ANSWER + 1)}, "at most"),
        ({"answer": "a" * 2**20}, "at most"),
        ({"answer": 7}, "valid string"),
        ({"answer": None}, "valid string"),
        ({"language": "english please"}, "not a language tag"),
        ({"language": ""}, "not a language tag"),
        ({"tags": ["a"] * 21}, "at most 20"),
        ({"tags": ["a" * 101]}, "at most 100"),
        ({"tags": "a;b"}, "valid list"),
        ({"title": "x"}, "not permitted"),
    ],
)
def test_what_is_no_entry(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Entry.model_validate(GOOD | change)


def test_a_language_is_that_of_its_region() -> None:
    assert [primary_language(tag) for tag in ("pt-BR", "EN", "zh-Hant-TW", None)] == ["pt", "en", "zh", ""]
