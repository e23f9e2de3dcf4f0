"""How good the served models are: writes docs/quality.md and its plot from what a server answers over HTTP.

Trains on Banking77, on Banking77 without ten intents, and on the Financial PhraseBank, once a seed, each in a home of
its own under FLYWHEEL_HOME (or var/), which the next run takes again if corpus, seed and code are the same. Then each
model is served, int8 as exported, and asked every text of its test part; the default models are asked the holdouts of
their seed corpora. A set whose data is not in ../shared/data is left out, and the document says so.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from rich.console import Console

from loadtests import machine
from loadtests.peers import PeerError
from loadtests.quality import calibration_plot
from loadtests.quality.page import Run, missed_bounds, other_commands, page
from loadtests.quality.sections import SOURCES, Section
from loadtests.quality.trained import train_all
from loadtests.servers import home
from loadtests.texts import ROOT

PAGE = ROOT / "docs" / "quality.md"
EXAMPLES = """examples:
  make quality                                             all sets, seeds 7, 8 and 9, about 80 minutes at first
  make quality ARGS=--quick                                one seed, about 30 minutes at first, then 3
  make quality ARGS="--sets seeds"                         the default models alone, a minute, into var/quality.md
  make quality ARGS="--sets banking77 --seeds 7 --check"   exit 1 when a bound is missed
"""


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended too
    console = Console(width=None if sys.stdout.isatty() else 140)
    started = time.monotonic()
    trainings = [one for name in options.sets for one in SOURCES[name].trainings(options.seeds)]
    waiting = sum(not one.is_done for one in trainings)
    sections: list[Section] = []
    try:
        training_minutes = train_all(trainings, console)
        for number, name in enumerate(options.sets, 1):
            console.print(f"set {number} of {len(options.sets)}: {name}", highlight=False)
            sections += SOURCES[name].measure(options.seeds, console)
    except (PeerError, OSError) as error:
        sys.exit(str(error))
    run = Run(
        options.command, commit(ROOT), machine.describe(), machine.versions(()), (time.monotonic() - started) / 60,
        training_minutes, waiting, len(trainings) - waiting,
    )  # fmt: skip
    write(run, sections, options.output, console)
    for section in sections:
        if section.absent:
            console.print(f"left out: {section.title}: {section.absent}", markup=False, highlight=False)
    missed = missed_bounds(sections)
    for sentence in missed:
        console.print(f"missed: {sentence}", markup=False, highlight=False)
    measured = any(section.figures for section in sections)
    return 1 if options.check and (missed or not measured) else 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sets", default=",".join(SOURCES), help="some of %(default)s")
    add("--seeds", default="7,8,9", help="seeds of the trainings (%(default)s)")
    add("--quick", action="store_true", help="the first seed alone")
    add("--output", type=Path, help="the document (default docs/quality.md for all sets, else var/quality.md)")
    add("--check", action="store_true", help="exit 1 when a bound is missed")
    options = parser.parse_args(arguments)
    options.sets = list(dict.fromkeys(options.sets.split(",")))
    if unknown := [name for name in options.sets if name not in SOURCES]:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(SOURCES)}")
    try:
        options.seeds = [int(seed) for seed in options.seeds.split(",")][: 1 if options.quick else None]
    except ValueError:
        parser.error(f"--seeds takes whole numbers with commas, not {options.seeds}")
    everything = set(options.sets) == set(SOURCES)
    options.output = options.output or (PAGE if everything else home() / "quality.md")
    chosen = [] if everything else [f"--sets {','.join(options.sets)}"]
    if options.sets != ["seeds"]:
        chosen.append(f"--seeds {','.join(map(str, options.seeds))}")
    options.command = f'make quality ARGS="{" ".join(chosen)}"'
    return options


def write(run: Run, sections: Sequence[Section], file: Path, console: Console) -> None:
    """Write the document, and beside it the plot if matplotlib is installed and anything was measured."""
    plot: Path | None = file.with_suffix(".svg") if any(section.runs for section in sections) else None
    if plot:
        try:
            calibration_plot.draw(sections, plot)
        except ModuleNotFoundError as error:
            console.print(f"no plot: {error.name} is not installed (pip install 'flywheel-serve[train]')", markup=False)
            plot = None
    others = other_commands(Path(__file__).parent, without=Path(__file__))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(run, sections, others, plot.name if plot else None), encoding="utf-8")
    console.print(f"written to {file}" + (f", plotted to {plot}" if plot else ""), markup=False, highlight=False)


def commit(root: Path) -> str:
    """The short hash of the checkout, and whether files differ from it; `unknown` outside one."""
    try:
        found = _git(root, "rev-parse", "--short", "HEAD").strip()
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found}, with changes that are not committed" if changed else found


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    raise SystemExit(main())
