"""The README: short, with an example for each task, and no command, target or link in it that does not exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.command import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


EXAMPLES = re.findall(r"```bash\n(curl .*?)```\s+```json\n(.*?)```", README, re.S)


def test_is_short_and_has_an_example_for_each_task() -> None:
    assert len(README.splitlines()) < 200
    assert [re.search(r"models/(\w+)/", command).group(1) for command, _ in EXAMPLES] == [  # type: ignore[union-attr]
        "intent",
        "sentiment",
        "recommendation",
    ]


def test_flywheel_commands_and_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make ([\w-]+)", README, re.M))
    assert {"serve", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    commands = set(re.findall(r"\.venv/bin/flywheel (\w+)", README))
    assert "train" in commands
    for command in commands:
        help_text = subprocess.run([Path(sys.executable).parent / "flywheel", command, "--help"], capture_output=True)
        assert help_text.returncode == 0, command


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link
