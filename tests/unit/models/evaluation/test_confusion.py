"""The confusion matrix is drawn for any labels, and as large for 2,000 as for 60."""

from __future__ import annotations

import csv
import struct
from pathlib import Path

import numpy as np

from models.evaluation.confusion import MAX_SHOWN_LABELS, PICTURE, TABLE, Confusion, write_picture, write_table

ODD = ["track_$x_$", "$", "\\frac{", "a^b_c", "日本語", "😀", "مرحبا", "x" * 100, "line\u2028break"]


def pixels(folder: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", (folder / PICTURE).read_bytes()[16:24])
    return width, height


def random_confusion(labels: int, examples: int) -> Confusion:
    rng = np.random.default_rng(0)
    names = [f"label {i}" for i in range(labels)]
    truth = rng.integers(0, labels, examples)
    said = np.where(rng.random(examples) < 0.3, rng.integers(0, labels, examples), truth)
    return Confusion(names, [names[i] for i in truth], [names[i] for i in said])


def test_a_label_with_any_characters_is_drawn_as_text(tmp_path: Path) -> None:
    write_picture(Confusion(ODD, ODD, ODD[1:] + ODD[:1]), tmp_path)
    assert pixels(tmp_path)[0] < 1000


def test_many_labels_make_no_larger_picture(tmp_path: Path) -> None:
    confusion = random_confusion(2000, 10_000)
    write_picture(confusion, tmp_path)
    assert pixels(tmp_path) == (2120, 2120)
    assert len(confusion.shown_labels()) == MAX_SHOWN_LABELS


def test_the_labels_that_are_confused_most_are_shown() -> None:
    names = [f"label {i:04}" for i in range(500)]
    truth, said = [*names, *["label 0400"] * 3], [*names, *["label 0499"] * 3]
    assert {"label 0400", "label 0499"} <= set(Confusion(names, truth, said).shown_labels())


def test_the_table_has_every_cell_that_is_not_empty(tmp_path: Path) -> None:
    confusion = random_confusion(2000, 10_000)
    write_table(confusion, tmp_path)
    with (tmp_path / TABLE).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["true", "predicted", "examples"]
    assert {(true, said): int(examples) for true, said, examples in rows} == confusion.counts()
    assert int(rows[0][2]) >= int(rows[1][2])
    assert rows[0][0] != rows[0][1]


def test_a_table_of_odd_labels_is_read_back(tmp_path: Path) -> None:
    write_table(Confusion(ODD, ODD, ODD), tmp_path)
    with (tmp_path / TABLE).open(newline="", encoding="utf-8") as file:
        assert {row[0] for row in csv.reader(file)} == {"true", *ODD}
