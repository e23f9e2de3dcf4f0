"""Explained predictions in a terminal and in a file."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from serve.cli.explanations import asking_for_explanations, print_explained

WORDS = [
    ("where", 0, 5, 0.5),
    ("is", 6, 8, -0.01),
    ("my", 9, 11, -2.0),
    ("[red]order", 12, 22, 4.0),
    ("?", 22, 23, 0.0),
]
PREDICTION = {
    "label": "track_order",
    "score": 0.97,
    "explanation": {
        "label": "track_order",
        "words": [dict(zip(("word", "start", "end", "contribution"), word, strict=True)) for word in WORDS],
        "rest": 0.98,
        "total": 3.47,
    },
}


def printed(*, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, color_system="standard" if terminal else None, width=20)
    print_explained(console, [PREDICTION])
    return file.getvalue()


def test_numbers_where_it_is_no_terminal() -> None:
    assert [line.split(None, 1) for line in printed(terminal=False).splitlines()] == [
        ["track_order", "0.97"], ["+0.5000", "where"], ["-0.0100", "is"], ["-2.0000", "my"], ["+4.0000", "[red]order"],
        ["+0.0000", "?"], ["+0.9800", "(rest)"], ["+3.4700", "(total: the log-odds of the score)"],
    ]  # fmt: skip


def test_words_are_coloured_on_a_terminal() -> None:
    _, text, _ = printed(terminal=True).splitlines()
    assert text == "\x1b[32mwhere\x1b[0m is \x1b[1;7;31mmy\x1b[0m \x1b[1;7;32m[red]order\x1b[0m?"


@pytest.mark.parametrize(
    ("body", "asked"),
    [(b'{"text": "a"}', {"text": "a", "explain": True}), (b"[1]", [1]), (b'{"explain": false}', {"explain": True})],
)
def test_a_request_is_made_to_ask_for_explanations(body: bytes, asked: object) -> None:
    assert json.loads(asking_for_explanations(body)) == asked


def test_what_is_no_json_is_left_to_the_server() -> None:
    assert asking_for_explanations(b"{") == b"{"


def test_reasons_of_a_ranking() -> None:
    reasons = [
        {"source": "history", "index": 0, "id": "tent-[1]", "contribution": 0.75},
        {"source": "history", "index": 3, "contribution": -0.5},
        {"source": "history", "others": 12, "contribution": 0.25},
        {"source": "feature", "name": "price", "contribution": -0.125},
        {"source": "item", "contribution": 0.1},
        {"source": "base", "contribution": -1.0},
    ]
    file = io.StringIO()
    print_explained(Console(file=file, width=20), [{"id": "stove", "score": 0.37, "reasons": reasons}])
    assert [line.split(None, 1) for line in file.getvalue().splitlines()] == [
        ["stove", "0.37"], ["+0.7500", "history tent-[1]"], ["-0.5000", "history #3"],
        ["+0.2500", "history, 12 others"],
        ["-0.1250", "feature price"], ["+0.1000", "item"], ["-1.0000", "base"],
    ]  # fmt: skip
    print_explained(Console(file=file), [])  # all were seen
