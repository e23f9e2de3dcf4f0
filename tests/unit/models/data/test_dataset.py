"""A labelled file is read whole or refused with the line and the remedy; its split and fingerprint are stable."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from models.data.dataset import DatasetError, Example, load_dataset
from models.data.split import text_key
from models.tasks.base import all_tasks
from tests.helpers.labelled import as_csv, as_jsonl, write

GOOD = "text,label,split\nhi there,greet,train\nbye,leave,train\nhello you,greet,holdout\n"
ROWS = [(f"{word} number {i}, please", word) for word in ("open", "close") for i in range(60)]


def json_lines(*lines: object) -> str:
    """Two good lines, then these."""
    good = [{"text": "hi", "label": "greet"}, {"text": "bye", "label": "leave"}]
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in (*good, *lines))


LINES = {
    "no text column": ("data.csv", "words,label\nhi,a\n", 1, "no column 'text'; it has: words, label"),
    "no label column": ("data.csv", "text\nhi\n", 1, "no column 'label'; it has: text"),
    "empty file": ("data.csv", "", 1, "no column 'text'; it has: nothing"),
    "no header": ("data.csv", "hi,greet\nbye,leave\n", 1, "The first line must name the columns: text,label"),
    "a column twice": ("data.csv", "text,label,text\nhi,a,b\n", 1, "has the column 'text' twice"),
    "empty label": ("data.csv", GOOD + "hey,,train\n", 5, "the label is empty"),
    "blank label": ("data.csv", GOOD + "hey,  ,train\n", 5, "the label is empty"),
    "empty text": ("data.csv", GOOD + ",greet,train\n", 5, "the text is empty"),
    "blank text": ("data.csv", GOOD + '" \t ",greet,train\n', 5, "the text is empty"),
    "invisible text": ("data.csv", GOOD + "\u200b\ufeff,greet,train\n", 5, "the text is empty"),
    "after a text of two lines": ("data.csv", GOOD + '"one\ntwo",greet,train\n,greet,\n', 7, "the text is empty"),
    "bad split": (
        "data.csv",
        GOOD + "hey,greet,test\n",
        5,
        "split is 'test'; it must be 'train', 'validation' or 'holdout'",
    ),
    "too few fields": ("data.csv", GOOD + "hey\n", 5, "no 'label', or it is not a string"),
    "too many fields": ("data.csv", GOOD + "hey, you,greet,train\n", 5, "more fields than the header has"),
    "unterminated quote": ("data.csv", GOOD + '"hey,greet,train\nho,greet,train\n', 5, "not valid CSV"),
    "text after a quote": ("data.csv", GOOD + '"hey"you,greet,train\n', 5, "not valid CSV"),
    "Latin-1": ("data.csv", (GOOD + "café,greet,train\n").encode("latin-1"), 5, "not UTF-8 (byte 0xe9)"),
    "UTF-16 without a mark": ("data.csv", GOOD.encode("utf-16-le"), 1, "iconv -f utf-16le -t utf-8 data.csv"),
    "UTF-16 BE without a mark": ("data.jsonl", json_lines().encode("utf-16-be"), 1, "iconv -f utf-16be -t utf-8"),
    "Latin-1 after a megabyte": (
        "data.csv",
        GOOD.encode() + b"a,b,train\n" * 99_999 + b"\xe9,b,train\n",
        100_004,
        "0xe9",
    ),
    "a label too long": ("data.csv", GOOD + f"hey,{'a' * 101},train\n", 5, "has 101 characters; at most 100"),
    "a label with a control character": ("data.csv", GOOD + "hey,a\x07b,train\n", 5, "has a control character"),
    "a list in JSONL": ("data.jsonl", '[{"text": "hi",\n', 1, "Write each object on a line of its own"),
    "Latin-1 JSONL": ("data.jsonl", json_lines().encode() + b'{"text": "caf\xe9"}\n', 3, "not UTF-8 (byte 0xe9)"),
    "not JSON": ("data.jsonl", json_lines('{"text": "hi",'), 3, "not JSON"),
    "not an object": ("data.jsonl", json_lines(["hi", "greet"]), 3, "a JSON object is expected"),
    "label a number": (
        "data.jsonl",
        json_lines({"text": "hi", "label": 1}),
        3,
        "'label' is a number, not a string",
    ),
    "label null": ("data.jsonl", json_lines({"text": "hi", "label": None}), 3, "no 'label', or it is not a string"),
    "no label": ("data.jsonl", json_lines({"text": "hi"}), 3, "no 'label', or it is not a string"),
    "text a list": ("data.jsonl", json_lines({"text": ["hi"], "label": "a"}), 3, "no 'text', or it is not a string"),
    "empty lines before": ("data.jsonl", json_lines("", "", {"text": "", "label": "a"}), 5, "the text is empty"),
    "split a number": ("data.jsonl", json_lines({"text": "a", "label": "b", "split": 1}), 3, "split is 1"),
}


@pytest.mark.parametrize(("name", "content", "line", "sentence"), LINES.values(), ids=LINES)
def test_a_bad_line_is_named(name: str, content: str | bytes, line: int, sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path, content, name)
    with pytest.raises(DatasetError) as caught:
        load_dataset("intent", file)
    assert str(caught.value).startswith(f"{file}, line {line}: ")
    assert sentence in str(caught.value)


FILES = {
    "one label": ("data.csv", "text,label\nhi,greet\nhello,greet\n", "all rows have the label 'greet'"),
    "no rows": ("data.csv", "text,label\n", "no training rows"),
    "empty JSONL": ("data.jsonl", "\n\n", "no training rows"),
    "only holdout": ("data.csv", "text,label,split\nhi,a,holdout\nbye,b,holdout\n", "no training rows"),
    "only train": ("data.csv", "text,label,split\nhi,a,train\nbye,b,train\n", "too few rows to hold any out (2)"),
    "a label only held out": ("data.csv", GOOD + "ouch,hurt,holdout\n", "the label 'hurt' is in the holdout but never"),
    "another ending": ("data.xlsx", GOOD, "not .xlsx. Save the sheet as 'CSV UTF-8'"),
    "no ending": ("data", GOOD, "give a .csv or .jsonl file, not a file without an ending"),
}


@pytest.mark.parametrize(("name", "content", "sentence"), FILES.values(), ids=FILES)
def test_a_bad_file_is_named(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path, content, name)
    with pytest.raises(DatasetError) as caught:
        load_dataset("intent", file)
    assert str(caught.value).startswith(f"{file}: ")
    assert sentence in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.csv: cannot be read: No such file"):
        load_dataset("intent", tmp_path / "nowhere.csv")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DatasetError, match=r"folder\.csv: is a directory. Give one file, for instance: cat"):
        load_dataset("intent", tmp_path / "folder.csv")


SPREADSHEETS = {
    "BOM": GOOD.encode("utf-8-sig"),
    "CRLF": GOOD.replace("\n", "\r\n").encode(),
    "CR": GOOD.replace("\n", "\r").encode(),
    "semicolons": GOOD.replace(",", ";").encode(),
    "semicolons, BOM and sep=": ("sep=;\r\n" + GOOD.replace(",", ";")).encode("utf-8-sig"),
    "tabs": GOOD.replace(",", "\t").encode(),
    "tabs in UTF-16": GOOD.replace(",", "\t").encode("utf-16"),
    "UTF-16 BE": b"\xfe\xff" + GOOD.encode("utf-16-be"),
    "another case": GOOD.replace("text,label", " Text ,LABEL").encode(),
    "quoted header": GOOD.replace("text,label,split", '"text","label","split"').encode(),
    "empty fields and lines of them": GOOD.replace("\n", ",,\n").replace("bye", ",,,,\n ,\nbye").encode(),
    "index column": ",".join(("", GOOD.replace("\n", "\n,").removesuffix(","))).encode(),
}


@pytest.mark.parametrize("content", SPREADSHEETS.values(), ids=SPREADSHEETS)
def test_what_spreadsheets_write_is_read_the_same(content: bytes, tmp_path: Path) -> None:
    plain = load_dataset("intent", write(tmp_path, GOOD))
    assert load_dataset("intent", write(tmp_path, content)) == plain


@pytest.mark.parametrize("name", ["data.csv.gz", "data.jsonl.gz"])
def test_a_file_compressed_by_gzip_is_read_the_same(name: str, tmp_path: Path) -> None:
    content = as_csv(ROWS) if "csv" in name else as_jsonl(ROWS)
    packed = load_dataset("intent", write(tmp_path, gzip.compress(content.encode()), name))
    assert packed == load_dataset("intent", write(tmp_path, content, name.removesuffix(".gz")))


def test_what_is_no_gzip_file_or_ends_early_is_named(tmp_path: Path) -> None:
    for content in (GOOD.encode(), gzip.compress(as_csv(ROWS).encode())[:-20]):
        with pytest.raises(DatasetError, match=r"data\.csv\.gz: cannot be unpacked"):
            load_dataset("intent", write(tmp_path, content, "data.csv.gz"))


def test_very_many_kinds_of_faults_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        load_dataset("intent", write(tmp_path, GOOD + "".join(f"hey,greet,{i}\n" for i in range(50))))
    sentences = str(caught.value).splitlines()
    assert len(sentences) == 21
    assert sentences[-1].endswith("30 more lines have other faults.")


def test_a_label_for_each_row_is_refused(tmp_path: Path) -> None:
    rows = [(f"text {i} {n}", f"id {i}") for i in range(10_001) for n in range(2)]
    with pytest.raises(DatasetError, match=r"at most 10,000 can be learned\. Is 'label' the right column"):
        load_dataset("intent", write(tmp_path, as_csv(rows)))


def test_all_bad_lines_are_named_at_once(tmp_path: Path) -> None:
    bad = ",greet,train\nhey,,train\n" * 9 + "hey,greet,test\n"
    with pytest.raises(DatasetError) as caught:
        load_dataset("intent", write(tmp_path, GOOD + bad))
    sentences = str(caught.value).splitlines()
    assert "line 5 (and 8 more such lines: 7, 9, 11, 13, 15, ...): the text is empty" in sentences[0]
    assert "line 6 (and 8 more such lines: 8, 10, 12, 14, 16, ...): the label is empty" in sentences[1]
    assert "line 23: split is 'test'" in sentences[2]


def test_an_explicit_split_is_kept(tmp_path: Path) -> None:
    dataset = load_dataset("intent", write(tmp_path, GOOD))
    assert dataset.train == [("hi there", "greet"), ("bye", "leave")]
    assert dataset.holdout == [("hello you", "greet")]
    assert dataset.labels == ["greet", "leave"]
    assert dataset.lineage().model_dump() == {
        "name": "data", "train_rows": 2, "holdout_rows": 1, "fingerprint": dataset.fingerprint
    }  # fmt: skip


def test_validation_texts_are_training_texts(tmp_path: Path) -> None:
    dataset = load_dataset("intent", write(tmp_path, GOOD + "good day,greet,validation\n"))
    assert dataset.train[-1] == Example("good day", "greet")
    assert dataset.validation == {text_key("good day")}
    assert not load_dataset("intent", write(tmp_path, GOOD)).validation


def test_other_columns_are_ignored(tmp_path: Path) -> None:
    rows = [(*row, "agent 7") for row in ROWS]
    with_note = load_dataset("intent", write(tmp_path, as_csv(rows, ("text", "label", "note"))))
    assert with_note == load_dataset("intent", write(tmp_path, as_csv(ROWS)))


def test_texts_with_commas_quotes_and_line_breaks_survive(tmp_path: Path) -> None:
    odd = [('say "hi", then\nleave — ☂', "open"), ("a,b", "close")]
    dataset = load_dataset("intent", write(tmp_path, as_csv([*ROWS, *odd])))
    assert {text for text, _ in odd} <= {text for text, _ in dataset.train + dataset.holdout}


def test_the_automatic_split_is_near_a_tenth_and_survives_reordering(tmp_path: Path) -> None:
    first = load_dataset("intent", write(tmp_path, as_csv(ROWS)))
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    second = load_dataset("intent", write(tmp_path, as_csv(shuffled)))
    assert sorted(first.train) == sorted(second.train)
    assert sorted(first.holdout) == sorted(second.holdout)
    assert 0.03 < len(first.holdout) / len(ROWS) < 0.2


def test_growing_the_file_moves_no_row_to_the_other_side(tmp_path: Path) -> None:
    more = [(f"a new one {i}", "open") for i in range(50)]
    first = load_dataset("intent", write(tmp_path, as_csv(ROWS)))
    second = load_dataset("intent", write(tmp_path, as_csv([*more, *ROWS])))
    assert set(first.train) <= set(second.train)
    assert set(first.holdout) <= set(second.holdout)


def test_repeats_stay_on_one_side_whatever_their_case_and_spaces(tmp_path: Path) -> None:
    repeats = [(variant, label) for text, label in ROWS for variant in (text, text.upper(), f"  {text} ")]
    dataset = load_dataset("intent", write(tmp_path, as_csv(repeats)))

    def normal(examples: Iterable[tuple[str, str]]) -> set[str]:
        return {" ".join(text.lower().split()) for text, _ in examples}

    assert not normal(dataset.train) & normal(dataset.holdout)
    assert len(dataset.train) + len(dataset.holdout) == len(repeats)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    original = load_dataset("intent", write(tmp_path, as_csv(ROWS))).fingerprint
    same = load_dataset("intent", write(tmp_path, as_jsonl(ROWS), "data.jsonl")).fingerprint
    changed = load_dataset("intent", write(tmp_path, as_csv([(ROWS[0][0] + "!", ROWS[0][1]), *ROWS[1:]]))).fingerprint
    assert len(original) == 64
    assert original == same != changed


@pytest.mark.parametrize("task", sorted(name for name, task in all_tasks().items() if task.kind == "classifier"))
def test_every_classifier_has_a_seed_corpus(task: str) -> None:
    dataset = load_dataset(task)
    assert dataset.name == task
    assert {example.label for example in dataset.holdout} == set(dataset.labels)


def test_a_blank_line_does_not_shift_the_line_numbers(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 7: the text is empty"):
        load_dataset("intent", write(tmp_path, GOOD + "\n\n,greet,train\n"))


def test_an_unterminated_quote_in_the_header_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 1: not valid CSV"):
        load_dataset("intent", write(tmp_path, '"text,label\nhi,greet\n'))
