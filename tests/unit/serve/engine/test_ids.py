"""Ids of predictions tell when they were made, and are not taken for another system's."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from models.feedback.store import made_at
from serve.engine.ids import new_id


def test_an_id_is_new_and_tells_when_it_was_made() -> None:
    ids = [new_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    for id_ in ids:
        assert re.fullmatch("[0-9a-f]{32}", id_)
        made = made_at(id_)
        assert made is not None
        assert timedelta(0) <= datetime.now(UTC) - made < timedelta(seconds=10)


@pytest.mark.parametrize(
    "id_",
    [
        "0192d5e4-7b3a-7c11-9f00-aabbccddeeff", "0192d5e47b3a7c119f00aabbccddeeff", "0192D5E47B3A0C119F00AABBCCDDEEFF",
        "01JA2QB4Z6R9T3V5W7X9Y1Z3A5", "550e8400-e29b-41d4-a716-446655440000", "0192d5e47b3a0c119f00aabbccddeef", "",
        "0192d5e47b3a0c119f00aabbccddeeff0", "0192d5e47b3a0c119f00aabbccddeeff\n", "nobody's",
    ],
)  # fmt: skip
def test_an_id_of_another_form_tells_nothing(id_: str) -> None:
    assert made_at(id_) is None
