"""The README's commands, run: each curl gives the answer printed under it, and the file stays short."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Server

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```bash\n(curl .*?)```\s+```json\n(.*?)```", README, re.S)


def test_is_short_and_has_an_example_for_each_task() -> None:
    assert len(README.splitlines()) < 200
    assert [re.search(r"models/(\w+)/", command).group(1) for command, _ in EXAMPLES] == [  # type: ignore[union-attr]
        "intent",
        "sentiment",
        "recommendation",
    ]


@pytest.mark.parametrize(("command", "printed"), EXAMPLES)
def test_curl_gives_the_printed_answer(server: Server, command: str, printed: str) -> None:
    run = command.replace("http://127.0.0.1:8000", server.url)
    answer = json.loads(subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=True).stdout)
    expected = json.loads(printed)
    assert answer.keys() == expected.keys()
    assert _without_numbers(answer["predictions"]) == _without_numbers(expected["predictions"])


def _without_numbers(value: Any) -> Any:
    """Labels, ids and order are the same on every machine; the last digits of scores need not be."""
    if isinstance(value, dict):
        return {key: _without_numbers(item) for key, item in value.items() if key != "top_k"}
    if isinstance(value, list):
        return [_without_numbers(item) for item in value]
    return None if isinstance(value, float) else value


def test_flywheel_commands_and_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for command in set(re.findall(r"\.venv/bin/flywheel (\w+)", README)):
        help_text = subprocess.run([Path(sys.executable).parent / "flywheel", command, "--help"], capture_output=True)
        assert help_text.returncode == 0, command


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
