"""The README's commands, run: each curl gives the answer printed under it."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.helpers.command import ROOT
from tests.helpers.server import Server

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```bash\n(curl .*?)```\s+```json\n(.*?)```", README, re.S)


@pytest.mark.parametrize(("command", "printed"), EXAMPLES)
def test_curl_gives_the_printed_answer(server: Server, command: str, printed: str) -> None:
    run = command.replace("http://127.0.0.1:8000", server.url)
    answer = json.loads(subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=True).stdout)
    expected = json.loads(printed)
    assert answer.keys() == expected.keys()
    assert _without_numbers(answer["predictions"]) == _without_numbers(expected["predictions"])


def _without_numbers(value: Any) -> Any:
    """Labels, ids and order are the same on every machine; the last digits of scores need not be.

    Nor need the word for one near a bound.
    """
    if isinstance(value, dict):
        shown = {key: _without_numbers(item) for key, item in value.items() if key != "top_k"}
        return shown | ({"confidence": None} if "confidence" in shown else {})
    if isinstance(value, list):
        return [_without_numbers(item) for item in value]
    return None if isinstance(value, float) else value
