"""Interactions files: what is refused and where, what is held out, and that nobody's future is in a history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.data.dataset import DatasetError
from models.data.interaction_files import load_checked_interactions, load_interactions
from models.data.interactions import Interactions

HEADER = "user_id,item_id,event,time,text"
Row = tuple[str, str, str, str, str]


def shop(users: int = 2, each: int = 10) -> list[Row]:
    """Each user sees items 0, 1, 2, ... at times 0, 1, 2, ... and chooses the even ones."""
    return [
        (f"u{user}", f"i{time}", "click" if time % 2 == 0 else "view", str(time), f"Item {time}")
        for user in range(users)
        for time in range(each)
    ]


def write(folder: Path, rows: list[Row], *lines: str, header: str = HEADER) -> Path:
    file = folder / "behaviour.csv"
    file.write_text("\n".join([header, *map(",".join, rows), *lines]) + "\n")
    return file


def load(folder: Path, rows: list[Row], *lines: str, header: str = HEADER) -> Interactions:
    return load_interactions(write(folder, rows, *lines, header=header))


def numbers_of(interactions: Interactions, item: str) -> dict[str, float]:
    return interactions.item_numbers(interactions.item_names.index(item))


LINES = {
    "unknown event": (
        "u1,i1,hover,3,Tent",
        "the event is 'hover'; it must be one of: buy, click, dislike, dwell, like, rating, view",
    ),
    "empty event": ("u1,i1,,3,Tent", "the event is ''"),
    "time a word": ("u1,i1,view,monday,Tent", "time is 'monday', which is no time"),
    "time empty": ("u1,i1,view,,Tent", "time is '', which is no time"),
    "time infinite": ("u1,i1,view,inf,Tent", "time is 'inf', which is no time"),
    "time not a number": ("u1,i1,view,nan,Tent", "time is 'nan', which is no time"),
    "empty user": (",i1,view,3,Tent", "user_id, item_id and text must not be empty"),
    "blank user": (" ,i1,view,3,Tent", "user_id, item_id and text must not be empty"),
    "empty item": ("u1,,view,3,Tent", "user_id, item_id and text must not be empty"),
    "blank text": ("u1,i1,view,3,  ", "user_id, item_id and text must not be empty"),
    "too many fields": ("u1,i1,view,3,Tent, big", "more fields than the header has"),
    "too few fields": ("u1,i1,view,3", "there is no 'text', or it is not a string"),
}


@pytest.mark.parametrize(("row", "sentence"), LINES.values(), ids=LINES)
def test_a_bad_line_is_named(row: str, sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path, shop(), row)
    with pytest.raises(DatasetError) as caught:
        load_interactions(file)
    assert str(caught.value).startswith(f"{file}, line 22: ")
    assert sentence in str(caught.value)


def test_a_price_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 3: price is 'cheap', which is not a number"):
        load(tmp_path, [], "u1,i1,view,1,Tent,9.5", "u1,i2,view,2,Mug,cheap", header=HEADER + ",price")


@pytest.mark.parametrize("column", HEADER.split(","))
def test_every_column_is_needed(column: str, tmp_path: Path) -> None:
    header = HEADER.replace(column, "other")
    with pytest.raises(DatasetError, match=f"line 1: the header has no column '{column}'"):
        load(tmp_path, shop(), header=header)


@pytest.mark.parametrize(
    ("event", "sentence"),
    [("view", "the training rows need both .* 0 of 16 are chosen"), ("buy", "need both .* 16 of 16 are chosen")],
)
def test_rows_with_one_outcome_teach_nothing(event: str, sentence: str, tmp_path: Path) -> None:
    rows = [(user, item, event, time, text) for user, item, _, time, text in shop()]
    with pytest.raises(DatasetError, match=sentence):
        load(tmp_path, rows)


def test_the_holdout_needs_both_outcomes_too(tmp_path: Path) -> None:
    rows = [",".join((*row, "holdout" if row[2] == "view" and int(row[3]) > 7 else "train")) for row in shop()]
    with pytest.raises(DatasetError, match="the holdout rows need both"):
        load(tmp_path, [], *rows, header=HEADER + ",split")


def test_the_newest_fifth_of_each_user_is_held_out(tmp_path: Path) -> None:
    interactions = load(tmp_path, list(reversed(shop(users=3, each=10))))
    users = list(interactions.events.users())
    assert len(users) == 3
    for _, rows in users:
        assert interactions.events.time[rows].tolist() == list(range(10))
        assert interactions.events.holdout[rows].tolist() == [False] * 8 + [True] * 2
    lineage = interactions.lineage()
    assert (lineage.train_rows, lineage.holdout_rows, lineage.items) == (24, 6, 10)


def test_a_user_is_one_however_the_file_spells_them(tmp_path: Path) -> None:
    spelled = ("Jürgen", "Ju\u0308rgen", " J%C3%BCrgen ")
    rows = [(spelled[int(row[3]) % 3], *row[1:]) for row in shop(users=1)]
    interactions = load(tmp_path, rows)
    assert interactions.user_names == ["Jürgen"]
    assert len(interactions.events) == 10


def test_an_explicit_split_is_kept(tmp_path: Path) -> None:
    rows = [",".join((*row, "holdout" if int(row[3]) < 2 else "train")) for row in shop()]
    interactions = load(tmp_path, [], *rows, header=HEADER + ",split")
    assert set(interactions.events.time[interactions.events.holdout].tolist()) == {0.0, 1.0}


def test_numbers_of_items_are_read_and_may_be_missing(tmp_path: Path) -> None:
    rows = [",".join((*row, "" if row[1] == "i3" else row[3], "5")) for row in shop()]
    interactions = load(tmp_path, [], *rows, header=HEADER + ",price,weight")
    assert interactions.item_feature_names == ["price", "weight"]
    assert numbers_of(interactions, "i2") == {"price": 2.0, "weight": 5.0}
    assert numbers_of(interactions, "i3") == {"weight": 5.0}


@pytest.mark.parametrize("event", ["click", "buy", "like"])
def test_each_kind_of_choice_counts(event: str, tmp_path: Path) -> None:
    rows = [(user, item, event if old == "click" else old, time, text) for user, item, old, time, text in shop()]
    assert load(tmp_path, rows).events.chosen.sum() == 10


def test_the_seed_shop_s_histories_are_of_the_past() -> None:
    interactions = load_interactions()
    events = interactions.events
    for _, rows in events.users():
        time, held_out = events.time[rows], events.holdout[rows]
        assert time[held_out].min() > time[~held_out].max()
    assert interactions.item_feature_names == ["price"]
    assert min(events.holdout.sum(), events.training.sum()) > 1000


def test_the_same_content_as_jsonl_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "behaviour.jsonl"
    names = HEADER.split(",")
    file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in shop()))
    assert load_interactions(file).fingerprint == load(tmp_path, shop()).fingerprint


def test_jsonl_may_hold_numbers_where_numbers_are_meant(tmp_path: Path) -> None:
    file = tmp_path / "behaviour.jsonl"
    names = [*HEADER.split(","), "price"]
    rows = [(user, item, event, int(time), text, 9.5) for user, item, event, time, text in shop()]
    file.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    assert numbers_of(load_interactions(file), "i0") == {"price": 9.5}


def test_an_unknown_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 2: split is 'test'"):
        load(tmp_path, [], "u1,i1,view,3,Tent,test", header=HEADER + ",split")


def test_a_bad_number_is_named_in_any_row_of_an_item(tmp_path: Path) -> None:
    rows = [",".join((*row, "cheap" if row[0] == "u1" else "9")) for row in shop()]
    with pytest.raises(DatasetError, match=r"line 12 \(and 9 more such lines: 13, .*\): price is 'cheap'"):
        load(tmp_path, [], *rows, header=HEADER + ",price")


def test_all_bad_lines_are_named_at_once(tmp_path: Path) -> None:
    bad = (
        "u1,i1,hover,3,Tent", "u1,i2,view,monday,Mug", ",i3,view,5,Lamp", "u2,i1,hover,4,Tent",
        "u1,i2,view,tuesday,Mug",
    )  # fmt: skip
    with pytest.raises(DatasetError) as caught:
        load(tmp_path, shop(), *bad)
    first, second, third = str(caught.value).split("\n")
    assert "line 22 (and 1 more such lines: 25): the event is 'hover'" in first
    assert "line 23 (and 1 more such lines: 26): time is 'monday', which is no time. Write seconds since 1970" in second
    assert "line 24: user_id, item_id and text must not be empty" in third


def test_the_report_counts_rows_and_items_and_tells_an_item_with_several_texts(tmp_path: Path) -> None:
    assert load_checked_interactions(write(tmp_path, shop()))[1].lines() == [
        "behaviour: 16 training rows, 4 in the holdout, 10 items"
    ]
    interactions, report = load_checked_interactions(write(tmp_path, shop(), "u1,i3,view,30,Another name"))
    assert interactions.texts[interactions.item_names.index("i3")] == "Item 3"
    assert [finding.kind for finding in report.findings] == ["item_with_several_texts"]
    assert "1 of 10 items have more than one text. For instance: 'i3' in line 22." in report.lines()[1]
