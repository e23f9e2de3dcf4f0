"""The report on a training file: one finding for each kind of oddity, with examples and what to do."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from pydantic import ValidationError

from models.data.checks import MIN_HOLDOUT
from models.data.dataset import load_checked, load_dataset
from models.data.report import CorpusReport, Finding
from models.evaluation.significance import difference_lower_bound
from models.tasks.thresholds import Thresholds
from models.text import label_fault, label_name
from serve.feedback.intake import Feedback
from tests.helpers.labelled import as_csv, write

PLAIN = [(f"{word} number {i}, please", word) for word in ("open", "close") for i in range(900)]


def report_of(rows: list[tuple[str, ...]], folder: Path, header: tuple[str, ...] = ("text", "label")) -> CorpusReport:
    return load_checked("intent", write(folder, as_csv(rows, header)))[1]


def only(report: CorpusReport) -> Finding:
    (finding,) = report.findings
    assert finding.sentence
    assert finding.action
    return finding


def test_nothing_is_found_in_a_plain_file_nor_in_the_seed(tmp_path: Path) -> None:
    assert report_of(PLAIN, tmp_path).findings == ()
    for task in ("intent", "sentiment"):
        assert [finding.kind for finding in load_checked(task)[1].findings if finding.severity != "note"] == []


def test_labels_that_differ_in_spaces_and_unicode_form_are_one_and_told(tmp_path: Path) -> None:
    variants = [
        "open ",
        "\u00a0open",
        "ope\u200bn",
        "clo\u0308se",
        "cl\u00f6se",
        "o  pen",
        "o\npen",
        "\u202eopen\u202c",
    ]
    rows = [*PLAIN, *((f"variant {i} {n}", label) for n, label in enumerate(variants) for i in range(20))]
    report = report_of(rows, tmp_path)
    assert set(load_dataset("intent", tmp_path / "data.csv").labels) == {"open", "close", "cl\u00f6se", "o pen"}
    finding = next(finding for finding in report.findings if finding.kind == "labels_rewritten")
    assert (finding.severity, finding.count) == ("warning", 7)
    assert "'open ' is read as 'open'" in finding.examples


def test_labels_alike_stay_and_are_told(tmp_path: Path) -> None:
    others = ["OPEN", "\uff4fpen", "c++", "c#", "c", "a_b", "A-B"]
    rows = [*PLAIN, *((f"other {i} {n}", label) for n, label in enumerate(others) for i in range(30))]
    finding = only(report_of(rows, tmp_path))
    assert finding.kind == "labels_alike"
    assert finding.examples == ("'A-B' and 'a_b'", "'OPEN' and 'open' and '\uff4fpen'")


def test_a_text_under_two_labels_is_told_with_both_lines(tmp_path: Path) -> None:
    finding = only(report_of([*PLAIN, ("OPEN number 3,  please", "close")], tmp_path))
    assert (finding.kind, finding.severity, finding.count) == ("text_with_two_labels", "warning", 1)
    assert "'open' in line 5" in finding.examples[0]
    assert "'close' in line 1802" in finding.examples[0]


def test_repeated_rows_are_a_note(tmp_path: Path) -> None:
    finding = only(report_of([*PLAIN, *PLAIN[:3], PLAIN[0]], tmp_path))
    assert (finding.kind, finding.severity, finding.count) == ("duplicates", "note", 4)
    assert finding.examples[0].startswith("line 1802, 'open number 0")


def test_texts_on_both_sides_of_the_file_s_own_split_are_told(tmp_path: Path) -> None:
    rows = [(*row, "holdout" if i % 5 == 0 else "train") for i, row in enumerate(PLAIN)]
    leaked = [(text.upper(), label, "train") for text, label, split in rows[:11] if split == "holdout"]
    report = report_of([*rows, *leaked], tmp_path, ("text", "label", "split"))
    finding = next(finding for finding in report.findings if finding.kind == "text_on_both_sides")
    assert (finding.severity, finding.count) == ("warning", 3)


def test_rare_labels_and_labels_without_a_held_out_text_are_told(tmp_path: Path) -> None:
    rows = [*PLAIN, *((f"only {i}", f"rare {i}") for i in range(40))]
    finding = only(report_of(rows, tmp_path))
    assert (finding.kind, finding.severity, finding.count) == ("rare_labels", "warning", 40)
    assert finding.examples[0] == "'rare 0' has 1"
    rows = [(*row, "holdout" if i % 5 == 0 and row[1] == "open" else "train") for i, row in enumerate(PLAIN)]
    finding = only(report_of(rows, tmp_path, ("text", "label", "split")))
    assert (finding.kind, finding.severity, finding.examples) == ("labels_not_held_out", "note", ("'close'",))


def test_one_label_of_99_percent_is_told(tmp_path: Path) -> None:
    rows = [(f"text number {i}", "rest" if i % 100 else "rare") for i in range(4000)]
    finding = only(report_of(rows, tmp_path))
    assert (finding.kind, finding.severity) == ("dominant_label", "warning")
    assert "'rest'" in finding.sentence


def test_a_small_holdout_is_told_with_what_the_gate_needs(tmp_path: Path) -> None:
    finding = only(report_of(PLAIN[850:950], tmp_path))
    assert finding.kind == "small_holdout"
    thresholds = Thresholds()

    def passes(texts: int) -> bool:
        return -100 * difference_lower_bound(0, 0, texts, thresholds.significance) <= thresholds.margin

    assert passes(MIN_HOLDOUT)
    assert not passes(MIN_HOLDOUT - 1)


def test_letters_that_were_decoded_wrongly_are_told(tmp_path: Path) -> None:
    broken = "für die Straße, it’s".encode().decode("windows-1252")
    right = ["für die Straße, it’s", "São João, Ãã", "ÃO", "naïve café", "я — Å"]
    finding = only(report_of([*PLAIN, *((text, "open") for text in right), (broken, "open")], tmp_path))
    assert (finding.kind, finding.count) == ("broken_characters", 1)


@pytest.mark.parametrize("label", ["a", "a" * 100, "a" * 101, "a\x07", "ä b", "", "a\x7f", "☂"])
def test_a_label_trains_if_and_only_if_feedback_can_name_it(label: str) -> None:
    label = label_name(label)
    try:
        Feedback(text="a text", label=label)
        accepted = True
    except ValidationError:
        accepted = False
    assert accepted == (bool(label) and label_fault(label) is None)


def test_the_report_is_written_as_a_page_and_as_json_and_escapes_what_is_in_the_file(tmp_path: Path) -> None:
    rows = [*PLAIN, ("<script>|`x`", "open"), ("<SCRIPT>|`x`", "close")]
    report = report_of(rows, tmp_path)
    report.write(tmp_path / "report")
    page = (tmp_path / "report" / "corpus.md").read_text()
    assert "\\<script\\>\\|\\`x\\`" in page.lower()
    assert "<script>" not in page.lower()
    data = orjson.loads((tmp_path / "report" / "corpus.json").read_bytes())
    assert data["findings"][0]["kind"] == "text_with_two_labels"
    assert report.lines()[0].endswith("in the holdout, 2 labels")
