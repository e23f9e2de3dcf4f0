"""Ratings of MovieLens-20M's size and skew: the same again for the same options, and a good file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from loadtests.quality.events import EVENTS, ITEMS, USERS, counts_of_users
from models.data.interaction_files import InteractionFiles, load_checked_interactions
from tests.helpers.command import ROOT


def write(folder: Path, *options: str) -> InteractionFiles:
    command = [sys.executable, str(ROOT / "loadtests" / "quality" / "events.py"), str(folder), *options]
    subprocess.run(command, check=True, capture_output=True)
    (events,) = folder.glob("events.*")
    return InteractionFiles(events, folder / "items.csv")


def test_the_counts_are_those_of_movielens() -> None:
    counts = counts_of_users(EVENTS, np.random.default_rng(0))
    assert len(counts) == USERS
    assert counts.min() == 20
    assert 60 <= np.median(counts) <= 76
    assert 5_000 <= counts.max() <= 9_254
    assert counts.sum() == pytest.approx(EVENTS, rel=0.02)


def test_a_small_file_is_the_same_again_and_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    files = write(tmp_path / "first", "--events", "3000")
    again = write(tmp_path / "second", "--events", "3000", "--format", "csv")
    interactions, report = load_checked_interactions(files)
    assert interactions.fingerprint == load_checked_interactions(again)[0].fingerprint
    assert not report.findings
    assert len(interactions.events) == pytest.approx(3000, rel=0.1)
    assert len(interactions.item_names) == ITEMS
    assert 0.3 < interactions.events.chosen.mean() < 0.6


@pytest.mark.slow
def test_two_million_events_take_little_memory(tmp_path: Path) -> None:
    """In a process of its own, whose peak is measured: half a gigabyte, with the libraries."""
    files = write(tmp_path, "--events", "2000000")
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from models.data.interaction_files import InteractionFiles, load_interactions\n"
        "found = load_interactions(InteractionFiles(*map(Path, sys.argv[1:])))\n"
        "print(len(found.events), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", script, str(files.events), str(files.items)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    events, peak_kb = map(int, done.stdout.split())
    assert events == parquet.read_metadata(files.events).num_rows
    assert peak_kb < 600_000
