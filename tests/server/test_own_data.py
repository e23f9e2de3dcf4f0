"""docs/own-data.md, followed word for word: each walk-through from the file to an answer and a correction."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command import ROOT
from tests.helpers.documented import Step, masked, only_shown, sections_of, steps_of, without_numbers
from tests.helpers.server import start_server, stop_server

WALKS = {
    name: steps_of(text)
    for name, text in sections_of((ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")).items()
    if "flywheel up" in text
}
_EXPORT = re.compile(r"^export (\w+)=(\S+)$", re.M)
_UP = ".venv/bin/flywheel up"


class Reader:
    """Who follows a walk-through: in a folder with the files of the repository, and homes of their own."""

    def __init__(self, folder: Path):
        for name, target in ((".venv", Path(sys.prefix)), ("docs", ROOT / "docs")):
            (folder / name).symlink_to(target)
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("FLYWHEEL_")}
        self.environment["COLUMNS"] = "200"
        self.replaced: dict[str, str] = {}  # what stands on the page, by what this reader has to write

    def run(self, step: Step) -> None:
        """Run the commands; what they print must be what the page shows, but for numbers that a machine changes."""
        commands = step.commands
        for shown, own in self.replaced.items():
            commands = commands.replace(shown, own)
        self.environment |= dict(_EXPORT.findall(commands))
        done = subprocess.run(
            ["bash", "-e", "-c", commands], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        if step.is_json:
            self._compare(json.loads(done.stdout), json.loads(step.printed))
        elif "--check" in commands:
            assert done.stdout == step.printed
        else:
            lines = {masked(line) for line in done.stdout.splitlines()}
            assert {masked(line) for line in step.printed.splitlines()} <= lines, done.stdout

    def _compare(self, answer: Any, shown: Any) -> None:
        if "id" in shown:
            self.replaced[shown.pop("id")] = answer["id"]
        assert without_numbers(only_shown(answer, shown)) == without_numbers(shown)

    @contextmanager
    def served(self, log: Path) -> Iterator[None]:
        """The server of the configuration that the reader has named."""
        config = self.environment["FLYWHEEL_CONFIG"]
        home = re.search(r"^home: (\S+)", (ROOT / config).read_text(), re.M)
        assert home is not None
        server = start_server(self.folder / home[1], log, cwd=self.folder, FLYWHEEL_CONFIG=config)
        self.replaced["http://127.0.0.1:8000"] = server.url
        self.environment["FLYWHEEL_URL"] = server.url
        try:
            yield
        finally:
            assert stop_server(server) == 0


def test_each_walk_through_checks_trains_serves_asks_and_corrects() -> None:
    assert len(WALKS) == 3
    for steps in WALKS.values():
        commands = [step.commands for step in steps]
        kinds = ["--check", "train", _UP, "/predict", "/feedback"]
        found = [next(at for at, command in enumerate(commands) if kind in command) for kind in kinds]
        assert found == sorted(found)


@pytest.mark.parametrize("name", WALKS)
def test_the_files_are_reported_as_shown(name: str, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    for step in WALKS[name]:
        if _EXPORT.search(step.commands) or "--check" in step.commands:
            reader.run(step)


def test_the_log_of_clicks_is_what_its_script_writes(tmp_path: Path) -> None:
    examples = ROOT / "docs" / "examples"
    for name in ("make_clicks.py", "products.csv"):
        shutil.copy(examples / name, tmp_path)
    subprocess.run([sys.executable, tmp_path / "make_clicks.py"], check=True)
    assert (tmp_path / "clicks.csv").read_bytes() == (examples / "clicks.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", WALKS)
def test_a_walk_through_does_what_it_says(name: str, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    steps = WALKS[name]
    (up,) = (at for at, step in enumerate(steps) if step.commands.startswith(_UP))
    for step in steps[:up]:
        reader.run(step)
    with reader.served(tmp_path / "server.log"):
        for step in steps[up + 1 :]:
            reader.run(step)
