"""Files as other systems export them: other names of columns and events, by --column and --event."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from models.data.dataset import DatasetError, load_checked
from models.data.interaction_files import InteractionFiles, load_checked_interactions
from models.data.naming import Naming, parse_naming
from models.data.report import CorpusReport
from models.training.candidate import TrainingJob

TICKETS = parse_naming(["text=Subject", "text=Body", "label=Queue"])
ROWS = [("Sales", f"Question {at}", f"What does {at} cost?") for at in range(20)]
ROWS += [("Network", f"Outage {at}", f"Line {at} is down.") for at in range(20)]
SHOP = ["user_id=visitor", "item_id=sku", "time=at", "event=type", "text=title", "text=brand"]


def table(path: Path, names: list[str], rows: list[tuple[str, ...]], delimiter: str = ",") -> Path:
    """The rows as the file's ending says."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    else:
        path.write_text("\n".join(delimiter.join(row) for row in [tuple(names), *rows]) + "\n")
    return path


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t"), ("t.jsonl", "")])
def test_texts_of_several_columns_are_joined_and_labels_are_of_the_named_one(
    tmp_path: Path, name: str, delimiter: str
) -> None:
    file = table(tmp_path / name, ["Queue", "Subject", "Body"], ROWS, delimiter)
    corpus, _ = load_checked("intent", file, TICKETS)
    assert corpus.labels == ["Network", "Sales"]
    assert "Outage 3 Line 3 is down." in {example.text for example in corpus.train + corpus.holdout}


def test_columns_are_found_in_another_case_and_our_own_names_give_way(tmp_path: Path) -> None:
    rows = [(label, "not this", subject, body) for label, subject, body in ROWS]
    file = table(tmp_path / "t.csv", ["queue", "text", " SUBJECT", "body"], rows, ";")
    corpus, _ = load_checked("intent", file, TICKETS)
    assert {example.text.split()[0] for example in corpus.train} == {"Question", "Outage"}


def test_an_empty_part_of_a_text_is_left_out_and_a_row_without_any_is_a_fault(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", ["Queue", "Subject", "Body"], [*ROWS, ("Sales", "", "Only a body")])
    corpus, _ = load_checked("intent", file, TICKETS)
    assert "Only a body" in {example.text for example in corpus.train + corpus.holdout}
    file = table(tmp_path / "t.csv", ["Queue", "Subject", "Body"], [*ROWS, ("Sales", "", "")])
    with pytest.raises(DatasetError, match="line 42: there is no 'text'"):
        load_checked("intent", file, TICKETS)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_file_with_other_names_is_told_how_to_name_them(tmp_path: Path, ending: str) -> None:
    file = table(tmp_path / f"t.{ending}", ["Queue", "Subject", "Body"], ROWS, ";")
    with pytest.raises(DatasetError, match=r"Queue, Subject, Body(.|\n)*--column text=ITS_NAME"):
        load_checked("intent", file)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["text=Summary", "label=Queue"], "the header has no column 'Summary'; it has: Queue, Subject, Body"),
        (["text=Body", "label=Queue", "split=Part"], "the header has no column 'Part'"),
        (["Subject=text", "label=Queue"], "there is no column 'Subject', only text, label, split"),
    ],
)
def test_a_name_that_the_file_or_we_do_not_have_is_refused(tmp_path: Path, columns: list[str], said: str) -> None:
    file = table(tmp_path / "t.csv", ["Queue", "Subject", "Body"], ROWS)
    with pytest.raises(DatasetError, match=said) as error:
        load_checked("intent", file, parse_naming(columns))
    assert "ITS_NAME" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "events", "said"),
    [
        (["text"], [], "--column 'text': write our name, =, and the file's name"),
        (["=body"], [], "--column '=body': write"),
        (["label=a", "label=b"], [], "--column label=... stands twice"),
        ([], ["purchase=buy"], "there is no event 'purchase'. Write one of buy, click"),
        ([], ["buy=order", "click=order"], "'order' is named as buy and as click"),
    ],
)
def test_options_that_mean_nothing_are_refused(columns: list[str], events: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        parse_naming(columns, events)


def test_names_need_a_file() -> None:
    with pytest.raises(ValueError, match="give it with --data"):
        TrainingJob("intent", naming=TICKETS)


def shop(folder: Path, ending: str, *, events: list[str], columns: list[str] = SHOP) -> CorpusReport:
    """The report on a log of eight visitors with a file of seven items."""
    rows = [
        (f"v{visitor}", f"A{at}", event, str(at * 10 + visitor))
        for visitor in range(8)
        for at in range(7)
        for event in (("impression", "page", "order") if at % 2 else ("impression", "scroll"))
    ]
    log = table(folder / f"log.{ending}", ["visitor", "sku", "type", "at"], rows)
    texts = [(f"A{at}", f"Thing {at}", "ACME") for at in range(7)]
    items = table(folder / f"items.{ending}", ["sku", "title", "brand"], texts)
    found, report = load_checked_interactions(InteractionFiles(log, items, naming=parse_naming(columns, events)))
    assert found.texts[0] == "Thing 0 ACME"
    assert found.item_feature_names == []
    return report


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_events_are_read_under_their_names_and_others_are_left_out_and_told(tmp_path: Path, ending: str) -> None:
    report = shop(tmp_path, ending, events=["view=impression", "click=page", "buy=order"])
    (left_out,) = (finding for finding in report.findings if finding.kind == "events_left_out")
    assert (left_out.count, left_out.examples) == (32, ("'scroll' (32)",))


def test_a_page_view_of_the_file_may_be_a_click(tmp_path: Path) -> None:
    rows = [(f"v{user}", f"A{at}", "view" if at % 2 else "shown", str(at)) for user in range(4) for at in range(6)]
    log = table(tmp_path / "log.csv", ["user_id", "item_id", "event", "time"], rows)
    items = table(tmp_path / "items.csv", ["item_id", "text"], [(f"A{at}", f"Thing {at}") for at in range(6)])
    naming = parse_naming([], ["click=view", "view=shown"])
    found, _ = load_checked_interactions(InteractionFiles(log, items, naming=naming))
    assert {found.item_names[item] for item in found.events.item[found.events.chosen]} == {"A1", "A3", "A5"}


def test_an_event_that_the_file_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no row has the event 'ordered'.*there are: 'impression', "):
        shop(tmp_path, "csv", events=["view=impression", "click=page", "buy=ordered"])


def test_a_column_that_no_file_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="--column: no file has the column 'cost'"):
        shop(tmp_path, "csv", events=["view=impression", "click=page"], columns=[*SHOP, "price=cost"])


def test_unknown_events_are_told_how_to_name_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"the event is 'impression'.*--event buy=purchase"):
        shop(tmp_path, "csv", events=[])


@pytest.mark.parametrize("time", ["2026-10-01 06:00:22 UTC", "2026-10-01 06:00:22.250000 UTC"])
def test_times_as_bigquery_writes_them_have_a_zone(tmp_path: Path, time: str) -> None:
    rows = [(f"v{user}", f"A{at}", "view" if at % 2 else "click", time.replace(":22", f":{at:02}"), "A thing")
            for user in range(4) for at in range(6)]  # fmt: skip
    log = table(tmp_path / "log.csv", ["user_id", "item_id", "event", "time", "text"], rows)
    found, report = load_checked_interactions(log)
    assert "times_without_zone" not in {finding.kind for finding in report.findings}
    assert 1790834400 <= found.events.time[0] < 1790834401


def test_no_names_leave_a_row_as_it_is() -> None:
    assert Naming().row({"text": "a", "Body": "b"}) == {"text": "a", "Body": "b"}
    assert not Naming()
