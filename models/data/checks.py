"""What a training file is checked for. docs/decisions/0033-any-corpus.md has the list, and why each is what it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.data.records import corpus_name
from models.data.report import CorpusReport, Finding
from models.text import label_likeness_key

if TYPE_CHECKING:
    from models.data.dataset import Example

MIN_TEXTS_OF_A_LABEL = 5  # fewer are rarely learned, and no statement about the label's recall is possible
# With fewer texts the gate cannot rule out a loss of two points, `gate.margin`, even if nothing changed: decision 0013.
MIN_HOLDOUT = 133
MAX_SHARE_OF_A_LABEL = 0.9
# An output of the model for each, for each text of the holdout: more take gigabytes, and nobody names them by hand.
MAX_LABELS = 10_000
_MAX_EXAMPLES = 5
_MAX_FAULTS = 20
_MAX_SHOWN = 80
# UTF-8 that was read as windows-1252 ("Ã¼" for ü, "â€™" for an apostrophe), and the mark of a byte that was lost.
_MOJIBAKE = re.compile("Ã[\x80-\xbf‚ƒ„…†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œžŸ]|â€[\x80-\xbf™œ\x9d“”¦¢˜]|\ufffd")

Faults = dict[str, list[int]]
"""lines of rows that cannot be used, by what is wrong with them, as a sentence"""


@dataclass
class Labelled:
    """The usable rows of a file. Arrays are (rows,)."""

    rows: list[Example]
    names: list[str]
    """labels by number, in the order in which they appear"""
    rewritten: Mapping[str, str]
    """labels that the file writes differently from what they became"""
    keys: NDArray[np.uint64]
    """models.data.split.text_key of each row"""
    labels: NDArray[np.int32]
    """number of each row's label"""
    lines: NDArray[np.uint32]
    splits: NDArray[np.uint8]
    """0 and 1 for rows that the file itself puts into training and holdout, 2 for the others"""
    held_out: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    validation: frozenset[int] = frozenset()
    """keys of the training rows that the file names as validation texts"""

    def examples(self, held_out: bool) -> list[Example]:
        return [self.rows[i] for i in np.flatnonzero(self.held_out == held_out)]

    def shown(self, row: int) -> str:
        return f"line {self.lines[row]}, {_cut(self.rows[row].text)!r}"

    def counts(self, held_out: bool) -> NDArray[np.intp]:
        """Rows by label number, (labels,)."""
        return np.bincount(self.labels[self.held_out == held_out], minlength=len(self.names))


def check_corpus(path: Path, rows: Labelled, faults: Faults) -> CorpusReport:
    """All findings, errors first. While there are rows that cannot be used, only these: the rest depends on them."""
    found = [*row_faults(path, faults)] or [*_split_errors(path, rows)]
    if len(rows.rows) and not faults:
        checks = (
            _rewritten_labels, _labels_alike, _two_labels, _leaks, _duplicates, _rare_labels, _dominant_label,
            _small_holdout, _mojibake,
        )  # fmt: skip
        found += [finding for check in checks for finding in check(rows)]
    order = {"error": 0, "warning": 1, "note": 2}
    found.sort(key=lambda finding: order[finding.severity])
    held_out = int(rows.held_out.sum())
    labels = len(np.unique(rows.labels[~rows.held_out]))
    return CorpusReport(corpus_name(path), len(rows.rows) - held_out, held_out, labels, tuple(found))


def row_faults(path: Path, faults: Faults, unit: str = "line") -> Iterator[Finding]:
    """An error for each kind of row that cannot be used; `unit` is what the numbers in `faults` count."""
    in_order = sorted(faults.items(), key=lambda item: item[1][0])
    if rest := in_order[_MAX_FAULTS:]:
        count = sum(len(lines) for _, lines in rest)
        in_order = in_order[:_MAX_FAULTS]
    for sentence, lines in in_order:
        more = f" (and {len(lines) - 1:,} more such {unit}s: {_listed(map(str, lines[1:]))})" if len(lines) > 1 else ""
        yield Finding("unusable_row", "error", len(lines), f"{path}, {unit} {lines[0]}{more}: {sentence}", "")
    if rest:
        yield Finding("unusable_row", "error", count, f"{path}: {count:,} more {unit}s have other faults.", "")


def _split_errors(path: Path, rows: Labelled) -> Iterator[Finding]:
    train, held_out = rows.counts(False), rows.counts(True)
    known = np.flatnonzero(train)
    if not known.size:
        yield Finding("no_training_rows", "error", 0, f"{path}: there are no training rows.", "")
        return
    if known.size == 1 and not (train == 0)[np.flatnonzero(held_out)].any():
        sentence = f"{path}: all rows have the label {rows.names[known[0]]!r}; a classifier needs two or more."
        yield Finding("one_label", "error", 1, sentence, "")
    elif unknown := sorted(rows.names[i] for i in np.flatnonzero((held_out > 0) & (train == 0))):
        also = f", as are {len(unknown) - 1:,} more: {_listed(unknown[1:])}" if len(unknown) > 1 else ""
        sentence = f"{path}: the label {unknown[0]!r} is in the holdout but never in the training rows{also};"
        yield Finding("label_only_held_out", "error", len(unknown), sentence, "add examples of it or remove it.")
    if known.size > MAX_LABELS:
        sentence = f"{path}: there are {known.size:,} labels, and at most {MAX_LABELS:,} can be learned."
        yield Finding("too_many_labels", "error", int(known.size), sentence, "Is 'label' the right column?")
    if not held_out.any():
        yield Finding("no_holdout", "error", 0, f"{path}: too few rows to hold any out ({int(train.sum())}); "
                      "give more examples: two texts of a label are enough to begin.", "")  # fmt: skip


def _rewritten_labels(rows: Labelled) -> Iterator[Finding]:
    if rows.rewritten:
        shown = [f"{written!r} is read as {label!r}" for written, label in sorted(rows.rewritten.items())]
        yield Finding(
            "labels_rewritten", "warning", len(shown),
            f"{len(shown):,} labels have spaces at an end, special spaces or another Unicode form than NFC.",
            "Clients get, and feedback must name, the label as it is read.", tuple(shown[:_MAX_EXAMPLES]),
        )  # fmt: skip


def _labels_alike(rows: Labelled) -> Iterator[Finding]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in rows.names:
        alike[label_likeness_key(name)].append(name)
    groups = sorted(sorted(names) for names in alike.values() if len(names) > 1)
    if groups:
        yield Finding(
            "labels_alike", "warning", len(groups),
            f"{len(groups):,} groups of labels differ only in case, width or separators, and stay separate labels.",
            "If they mean the same, give them one name.",
            tuple(" and ".join(map(repr, names[:_MAX_EXAMPLES])) for names in groups[:_MAX_EXAMPLES]),
        )  # fmt: skip


def _two_labels(rows: Labelled) -> Iterator[Finding]:
    order = np.lexsort((rows.labels, rows.keys))
    keys, labels = rows.keys[order], rows.labels[order]
    changes = np.flatnonzero((keys[1:] == keys[:-1]) & (labels[1:] != labels[:-1]))
    texts, first = np.unique(keys[changes], return_index=True)
    if texts.size:
        pairs = [(order[at], order[at + 1]) for at in np.sort(changes[first])[:_MAX_EXAMPLES]]
        yield Finding(
            "text_with_two_labels", "warning", len(texts),
            f"{len(texts):,} texts have two labels or more (case and spaces aside).",
            "Each is learned as both, and one is wrong. Keep the right one; if both are right, the labels overlap.",
            tuple(
                f"{_cut(rows.rows[a].text)!r} is {rows.rows[a].label!r} in line {rows.lines[a]} and "
                f"{rows.rows[b].label!r} in line {rows.lines[b]}"
                for a, b in pairs
            ),
        )  # fmt: skip


def _leaks(rows: Labelled) -> Iterator[Finding]:
    """Texts on both sides; only a split of the file itself can have them."""
    leaked = np.flatnonzero(rows.held_out & np.isin(rows.keys, rows.keys[~rows.held_out]))
    if leaked.size:
        yield Finding(
            "text_on_both_sides", "warning", len(leaked),
            f"{len(leaked):,} of {int(rows.held_out.sum()):,} holdout texts are among the training rows too.",
            "The metrics are too good by these. Leave the column 'split' out, or take them out of one side.",
            _examples(rows, leaked),
        )  # fmt: skip


def _duplicates(rows: Labelled) -> Iterator[Finding]:
    order = np.lexsort((rows.lines, rows.labels, rows.keys))
    keys, labels = rows.keys[order], rows.labels[order]
    repeated = order[1:][(keys[1:] == keys[:-1]) & (labels[1:] == labels[:-1])]
    if repeated.size:
        yield Finding(
            "duplicates", "note", len(repeated),
            f"{len(repeated):,} of {len(rows.rows):,} rows repeat another row (case and spaces aside).",
            "They are kept, and count as often as they stand there.", _examples(rows, np.sort(repeated)),
        )  # fmt: skip


def _rare_labels(rows: Labelled) -> Iterator[Finding]:
    train, held_out = rows.counts(False), rows.counts(True)
    rare = np.flatnonzero((train > 0) & (train < MIN_TEXTS_OF_A_LABEL))
    if rare.size:
        shown = [f"{rows.names[i]!r} has {train[i]}" for i in rare[np.argsort(train[rare], kind="stable")]]
        yield Finding(
            "rare_labels", "warning", len(rare),
            f"{len(rare):,} of {int((train > 0).sum()):,} labels have under {MIN_TEXTS_OF_A_LABEL} training texts.",
            "They will rarely be predicted. Give more examples, or merge them into another label.",
            tuple(shown[:_MAX_EXAMPLES]),
        )  # fmt: skip
    unmeasured = [rows.names[i] for i in np.flatnonzero((train >= MIN_TEXTS_OF_A_LABEL) & (held_out == 0))]
    if unmeasured:
        yield Finding(
            "labels_not_held_out", "note", len(unmeasured),
            f"{len(unmeasured):,} further labels have no text in the holdout, so their recall is not measured.",
            "Give more examples, or a column 'split'.", tuple(map(repr, sorted(unmeasured)[:_MAX_EXAMPLES])),
        )  # fmt: skip


def _dominant_label(rows: Labelled) -> Iterator[Finding]:
    train = rows.counts(False)
    largest, total = int(train.argmax()), int(train.sum())
    share = train[largest] / max(total, 1)
    if share > MAX_SHARE_OF_A_LABEL and np.count_nonzero(train) > 1:
        yield Finding(
            "dominant_label", "warning", int(train[largest]),
            f"{share:.1%} of the training rows have the label {rows.names[largest]!r}.",
            f"A model that always gives it has an accuracy of {share:.1%}: read macro_f1 and min_recall instead.",
        )  # fmt: skip


def _small_holdout(rows: Labelled) -> Iterator[Finding]:
    held_out = int(rows.held_out.sum())
    if 0 < held_out < MIN_HOLDOUT:
        points = min(50.0, 98 / held_out**0.5)  # half of a 95 % interval of a share of one half
        yield Finding(
            "small_holdout", "warning", held_out,
            f"The holdout has {held_out} texts: an accuracy measured on it is uncertain by up to {points:.0f} points, "
            f"and a retraining's gate, which needs {MIN_HOLDOUT}, will refuse every candidate.",
            "Give more examples; or raise gate.margin of the task in flywheel.yaml.",
        )  # fmt: skip


def _mojibake(rows: Labelled) -> Iterator[Finding]:
    broken = [i for i, row in enumerate(rows.rows) if not row.text.isascii() and _MOJIBAKE.search(row.text)]
    if broken:
        yield Finding(
            "broken_characters", "warning", len(broken),
            f"{len(broken):,} texts have letters that were decoded wrongly, such as 'Ã¼' for 'ü'.",
            "Export the file again as UTF-8, from where it was still right.", _examples(rows, broken),
        )  # fmt: skip


def _examples(rows: Labelled, found: Iterable[int]) -> tuple[str, ...]:
    return tuple(rows.shown(i) for i, _ in zip(found, range(_MAX_EXAMPLES), strict=False))


def _listed(names: Iterable[str]) -> str:
    """The first names; how many more there are is said elsewhere."""
    first: Sequence[str] = [name for name, _ in zip(names, range(_MAX_EXAMPLES + 1), strict=False)]
    return ", ".join(first[:_MAX_EXAMPLES]) + (", ..." if len(first) > _MAX_EXAMPLES else "")


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
