"""Explained predictions: the words coloured by their contributions on a terminal, as numbers elsewhere. Of a ranking,
the reasons for each item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

_STRONG, _WEAK = 0.5, 0.1  # of the greatest contribution
_COLUMN = 10  # characters of a number


def asking_for_explanations(body: bytes) -> bytes:
    """The JSON request with `explain`; unchanged if it is no object, which the server refuses in its own words."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    return orjson.dumps({**request, "explain": True}) if isinstance(request, dict) else body


def print_explained(console: Console, predictions: Sequence[Mapping[str, Any]]) -> None:
    """Print each prediction's label, score and explanation, or its item, score and reasons."""
    if predictions and "reasons" in predictions[0]:
        _print_ranking(console, predictions)
        return
    for prediction in predictions:
        console.print(Text(f"{prediction['label']}  {prediction['score']}", "bold"), soft_wrap=True)
        explanation = prediction["explanation"]
        if console.is_terminal:
            console.print(_coloured(explanation["words"]), soft_wrap=True)
        else:
            for line in _numbers(explanation):
                console.print(line, soft_wrap=True, markup=False, highlight=False)
    if console.is_terminal:
        console.print(
            Text.assemble(("for the label", "green"), ", ", ("against it", "red"), style="dim"), soft_wrap=True
        )


def _coloured(words: Sequence[Mapping[str, Any]]) -> Text:
    greatest = max((abs(word["contribution"]) for word in words), default=0) or 1
    text, end = Text(), 0
    for word in words:
        share = word["contribution"] / greatest
        colour = "green" if share > 0 else "red"
        style = f"bold reverse {colour}" if abs(share) >= _STRONG else colour if abs(share) >= _WEAK else ""
        text.append(" " if word["start"] > end > 0 else "").append(word["word"], style)
        end = word["end"]
    return text


def _numbers(explanation: Mapping[str, Any]) -> Iterator[str]:
    for word in explanation["words"]:
        yield f"{word['contribution']:+{_COLUMN}.4f}  {word['word']}"
    yield f"{explanation['rest']:+{_COLUMN}.4f}  (rest)"
    yield f"{explanation['total']:+{_COLUMN}.4f}  (total: the log-odds of the score)"


def _print_ranking(console: Console, predictions: Sequence[Mapping[str, Any]]) -> None:
    for prediction in predictions:
        console.print(Text(f"{prediction['id']}  {prediction['score']}", "bold"), soft_wrap=True)
        for reason in prediction["reasons"]:
            style = "green" if reason["contribution"] > 0 else "red"
            console.print(
                Text(f"{reason['contribution']:+{_COLUMN}.4f}", style), Text(_described(reason)), soft_wrap=True
            )


def _described(reason: Mapping[str, Any]) -> str:
    """What the contribution is of: `history tent-1`, `feature price`, `history, 12 others`."""
    if "others" in reason:
        return f"{reason['source']}, {reason['others']} others"
    if reason["source"] == "history":
        return f"history {reason.get('id') or '#' + str(reason['index'])}"
    return f"{reason['source']} {reason.get('name', '')}".strip()
