"""README and documentation name only commands, targets, files and links that exist; the README is short."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from serve.config import Config
from tests.helpers.command import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
# docs/decisions/appendix has records as they were written, of files of their time.
CURRENT = [page for page in PAGES if page.parent.name != "appendix"]
SOURCES = ("serve", "models", "export", "loadtests", "tests", "docs", "deploy")

# `section.key` or `section.key: value`; `ray.serve` and the like are modules.
_KEY = re.compile(
    r"`((?:server|limits|batching|cache|session|ray|learning|rollout|feedback\.log)"
    r"\.(?!py\b|init\b|serve\b|_private)[a-z_.]+)(?:: [^`]*)?`"
)

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


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_source_files_exist(page: Path) -> None:
    files = [f"/{file.relative_to(ROOT)}" for source in SOURCES for file in (ROOT / source).rglob("*.*")]
    for name in re.findall(r"[\w./-]+\.(?:py|cfg|sh|lua)\b", page.read_text(encoding="utf-8")):
        assert any(file.endswith(f"/{name.removeprefix('/')}") for file in files), name


def test_named_configuration_keys_exist() -> None:
    keys = {key for page in CURRENT if page.name != "CHANGELOG.md" for key in _KEY.findall(page.read_text("utf-8"))}
    assert "learning.min_new_samples" in keys
    for key in keys:
        section: type[BaseModel] = Config
        *sections, last = key.split(".")
        for name in sections:
            section = section.model_fields[name].annotation  # type: ignore[assignment]
        assert last in section.model_fields, key
