"""The README's commands, run: each curl gives the answer printed under it."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.helpers.command import ROOT
from tests.helpers.documented import without_numbers
from tests.helpers.server import Server

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```bash\n(curl .*?)```\s+```json\n(.*?)```", README, re.S)


@pytest.mark.parametrize(("command", "printed"), EXAMPLES)
def test_curl_gives_the_printed_answer(server: Server, command: str, printed: str) -> None:
    run = command.replace("http://127.0.0.1:8000", server.url)
    answer = json.loads(subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=True).stdout)
    expected = json.loads(printed)
    assert answer.keys() == expected.keys()
    assert without_numbers(answer["predictions"]) == without_numbers(expected["predictions"])
