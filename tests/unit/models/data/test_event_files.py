"""Events as people have them: names with values, files of items and users, Parquet, and everything odd in them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from models.data.dataset import DatasetError
from models.data.interaction_files import InteractionFiles, load_checked_interactions, load_interactions
from models.data.interactions import Interactions
from models.data.report import Finding

HEADER = "user_id,item_id,event,time,value,text"
Rows = Sequence[Sequence[Any]]


def shop(
    event: str = "view", chosen: str = "click", users: int = 4, each: int = 10, items: int = 20
) -> list[list[Any]]:
    """Each user has events of ten different items at times 0, 1, 2, ...; every second is `chosen`."""
    numbered = [(user, time, (user * 3 + time) % items) for user in range(users) for time in range(each)]
    return [
        [f"u{user}", f"i{item}", event if time % 2 else chosen, time, "", f"Item {item}"]
        for user, time, item in numbered
    ]  # fmt: skip


def write(path: Path, rows: Rows, header: str = HEADER) -> Path:
    names = header.split(",")
    if path.suffix == ".parquet":
        columns = {name: [None if row[at] == "" else row[at] for row in rows] for at, name in enumerate(names)}
        parquet.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    else:
        path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def load(folder: Path, rows: Rows, header: str = HEADER) -> tuple[Interactions, list[Finding]]:
    interactions, report = load_checked_interactions(write(folder / "events.csv", rows, header))
    return interactions, list(report.findings)


def by_kind(found: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.kind: finding for finding in found}


def fault(folder: Path, *rows: Sequence[Any], header: str = HEADER) -> str:
    """What a file says in which these rows follow forty good ones."""
    names = header.split(",")
    good = [[*row, *("" for _ in names[6:])] for row in shop()]
    file = write(folder / "events.csv", [*good, *rows], header)
    with pytest.raises(DatasetError) as caught:
        load_interactions(file)
    return str(caught.value).removeprefix(f"{file}, ")


# Names and values


@pytest.mark.parametrize(
    ("event", "value", "chosen"),
    [
        ("view", "", False), ("click", "", True), ("like", "", True), ("buy", "", True), ("dislike", "", False),
        ("dwell", 29.9, False), ("dwell", 30, True), ("dwell", 0, False),
    ],
)  # fmt: skip
def test_what_an_event_says(event: str, value: float | str, chosen: bool, tmp_path: Path) -> None:
    interactions, _ = load(tmp_path, [*shop(), ["one", "i1", event, 5, value, "Item 1"]])
    of_one = interactions.events.user == interactions.user_names.index("one")
    assert interactions.events.chosen[of_one].tolist() == [chosen]


def test_what_costs_more_weighs_more(tmp_path: Path) -> None:
    rows = [["one", f"i{at}", event, at, "", f"Item {at}"] for at, event in enumerate(("click", "like", "buy"))]
    interactions, _ = load(tmp_path, [*shop(), *rows])
    weights = interactions.events.weight[interactions.events.user == interactions.user_names.index("one")]
    assert weights.tolist() == sorted(set(weights.tolist()))


@pytest.mark.parametrize(
    ("scale", "liked"),
    [
        ((1, 2, 3, 4, 5), {4, 5}), ((0.5, 1, 2, 3.5, 4, 4.5, 5), {4, 4.5, 5}), ((0, 1), {1}),
        (tuple(range(1, 11)), {8, 9, 10}), ((10, 50, 70, 80, 100), {80, 100}),
        ((10, 400, 500), {400, 500}),
    ],
)  # fmt: skip
def test_a_rating_chooses_from_three_quarters_of_the_files_range(
    scale: Sequence[float], liked: set[float], tmp_path: Path
) -> None:
    rows = [
        [f"u{user}", f"i{at}", "rating", at, scale[(at * 7 + user) % len(scale)], f"Item {at}"]
        for user in range(8)
        for at in range(15)
    ]
    interactions = load(tmp_path, rows)[0]
    events, told = interactions.events, interactions.ratings
    assert {rating for rating in scale if rating >= told.liked_from} == liked
    assert max(scale) <= told.highest
    value = {(row[0], row[3]): row[4] for row in rows}
    user, time = events.user[events.chosen].tolist(), events.time[events.chosen].tolist()
    found = {value[f"u{user}", time] for user, time in zip(user, time, strict=True)}
    assert found == liked


# Forms of files


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_the_same_events_in_another_form_are_the_same(ending: str, tmp_path: Path) -> None:
    rows = [
        [*row, time % 5, 30 + user] for user in range(4) for time, row in enumerate(shop()[user * 10 : user * 10 + 10])
    ]
    rows[3][6] = rows[5][7] = ""
    header = HEADER + ",context_hour,user_age"
    plain = load_interactions(write(tmp_path / "events.csv", rows, header))
    assert load_interactions(write(tmp_path / f"events{ending}", rows, header)).fingerprint == plain.fingerprint
    assert plain.context_feature_names == ["hour"]
    assert plain.user_feature_names == ["age"]
    assert plain.user_features[:, 0].tolist() == [30, 31, 32, 33]
    assert np.isnan(plain.context_features).sum() == 1


def test_parquet_of_numbers_and_times(tmp_path: Path) -> None:
    """What pandas writes: whole numbers as names, times with a zone, missing numbers as NaN."""
    rows = shop()
    table = {
        "user_id": [int(row[0][1:]) for row in rows],
        "item_id": [int(row[1][1:]) for row in rows],
        "event": pa.array([row[2] for row in rows]).dictionary_encode(),
        "time": pa.array([datetime(2026, 1, 1, 0, 0, row[3], tzinfo=UTC) for row in rows], pa.timestamp("ns", "UTC")),
        "text": [row[5] for row in rows],
        "price": [float("nan") if row[1] == "i3" else 2.5 for row in rows],
    }
    parquet.write_table(pa.table(table), tmp_path / "events.parquet")
    interactions = load_interactions(tmp_path / "events.parquet")
    assert interactions.user_names == ["0", "1", "2", "3"]
    assert interactions.events.time[:2].tolist() == [datetime(2026, 1, 1, tzinfo=UTC).timestamp() + at for at in (0, 1)]
    assert interactions.item_numbers(interactions.item_names.index("3")) == {}
    assert interactions.item_numbers(interactions.item_names.index("0")) == {"price": 2.5}


def test_a_bad_row_of_parquet_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "events.parquet", [*shop(), ["u1", "i1", "hover", 3, "", "Item 1"]])
    with pytest.raises(DatasetError, match=f"^{file}, row 41: the event is 'hover'"):
        load_interactions(file)
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        load_interactions(file)
    with pytest.raises(DatasetError, match="there is no column 'text'"):
        load_interactions(write(file, [row[:5] for row in shop()], HEADER.removesuffix(",text")))


def two_files(
    folder: Path, items: Rows, header: str = "item_id,text,price", rows: Rows | None = None
) -> InteractionFiles:
    events = write(folder / "events.csv", [row[:5] for row in rows or shop()], HEADER.removesuffix(",text"))
    return InteractionFiles(events, write(folder / "items.csv", items, header))


def test_texts_and_numbers_of_items_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    items = [[f"i{at}", f"Item {at}", at or ""] for at in range(25)]
    interactions = load_interactions(two_files(tmp_path, items))
    assert len(interactions.item_names) == 25  # those without events are in the catalogue
    assert interactions.texts[interactions.item_names.index("i24")] == "Item 24"
    assert interactions.item_numbers(interactions.item_names.index("i3")) == {"price": 3.0}
    assert interactions.item_numbers(interactions.item_names.index("i0")) == {}


def test_users_may_have_a_file_of_their_own(tmp_path: Path) -> None:
    files = two_files(tmp_path, [[f"i{at}", f"Item {at}", at] for at in range(20)])
    users = write(tmp_path / "users.csv", [["u1", 30, 1], ["nobody", 40, 2], ["u0", "", 3]], "user_id,age,user_since")
    interactions = load_interactions(InteractionFiles(files.events, files.items, users))
    assert sorted(interactions.user_names) == ["u0", "u1", "u2", "u3"]
    assert interactions.user_feature_names == ["age", "since"]
    age = interactions.user_features[:, 0]
    assert age[interactions.user_names.index("u1")] == 30
    assert np.isnan(age).sum() == 3


def test_items_that_the_file_of_items_lacks_are_told(tmp_path: Path) -> None:
    files = two_files(tmp_path, [[f"i{at}", f"Item {at}", at] for at in range(12)])
    interactions, report = load_checked_interactions(files)
    finding = by_kind(report.findings)["items_without_text"]
    lost = [row for row in shop() if int(row[1][1:]) >= 12]
    assert finding.severity == "warning"
    assert f"7 items are not in {files.items}, so that their {len(lost)} events are left out." in finding.sentence
    assert len(interactions.events) == 40 - len(lost)
    assert interactions.item_names == [f"i{at}" for at in range(12)]
    with pytest.raises(DatasetError, match=r"has no item of the events, which are 'i0', .*in the same way"):
        load_interactions(two_files(tmp_path, [["0", "Item 0", 1]]))


def test_bad_rows_of_items_and_users_are_named(tmp_path: Path) -> None:
    files = two_files(tmp_path, [["i1", "Tent", 1], ["i2", " ", 2], ["", "Mug", 3], ["i4", "Lamp", "inf"]])
    users = write(tmp_path / "users.csv", [["u1", 30], ["", 40]], "user_id,age")
    with pytest.raises(DatasetError) as caught:
        load_interactions(InteractionFiles(files.events, files.items, users))
    assert str(caught.value).split("\n") == [
        f"{files.items}, line 3 (and 1 more such lines: 4): item_id and text must not be empty.",
        f"{files.items}, line 5: price is 'inf', which is not finite. Write numbers such as 9.5, or leave the column "
        "out.",
        f"{users}, line 3: user_id must not be empty.",
    ]


# Bad input


def test_unknown_events_are_named_with_those_that_are_known(tmp_path: Path) -> None:
    said = fault(tmp_path, ["u1", "i1", "purchase", 3, "", "Item 1"], ["u1", "i1", "purchase", 4, "", "Item 1"])
    assert said == (
        "line 42 (and 1 more such lines: 43): the event is 'purchase'; it must be one of: buy, click, dislike, dwell, "
        "like, rating, view. If the file names them otherwise, say so: --event buy=purchase"
    )


@pytest.mark.parametrize("value", ["", "good", "nan", "inf", "-1"])
def test_a_rating_without_a_good_value_is_named(value: str, tmp_path: Path) -> None:
    said = fault(tmp_path, ["u1", "i1", "rating", 3, value, "Item 1"])
    assert said.startswith(f"line 42: the value of the rating is {value!r}. A rating needs its number of stars")
    assert fault(tmp_path, ["u1", "i1", "dwell", 3, value, "Item 1"]).startswith("line 42: the value of the dwell")


def test_a_rating_above_the_scale_of_the_others_is_named(tmp_path: Path) -> None:
    rows = [["u", f"i{at}", "rating", at, at % 5 + 1, f"Item {at}"] for at in range(30)]
    said = fault(tmp_path, *rows, ["u", "i40", "rating", 50, 45, "Item 40"])
    assert said == (
        "line 72: the rating is 45, and the file's ratings are from 0 to 5. Correct the value or leave the row out."
    )


def test_ratings_that_are_all_the_same_say_nothing(tmp_path: Path) -> None:
    rows = [["u", f"i{at}", "rating", at, 5, f"Item {at}"] for at in range(5)]
    with pytest.raises(DatasetError, match=r"all 5 ratings are 5, .* write 'like' as the event"):
        load(tmp_path, [*shop(), *rows])


@pytest.mark.parametrize("time", ["yesterday", "2024-13-01", "", "nan", "inf"])
def test_what_is_no_time_is_named(time: str, tmp_path: Path) -> None:
    said = fault(tmp_path, ["u1", "i1", "view", time, "", "Item 1"])
    assert said == (
        f"line 42: time is {time!r}, which is no time. Write seconds since 1970, or ISO 8601 such as "
        "2026-01-31T09:30:00Z."
    )


def timed(time: Any) -> list[list[Any]]:
    """The shop's rows, of which `time` gives the time of the moments 0, 1, 2, ..."""
    return [[*row[:3], time(row[3]), *row[4:]] for row in shop()]


NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("form", "without_zone"),
    [
        ("2026-01-01T00:00:{:02}Z", 0), ("2026-01-01t01:00:{:02}.000+01:00", 0), (" 2026-01-01 00:00:{:02}", 40),
        ("20260101T0000{:02}", 40),
    ],
)  # fmt: skip
def test_times_in_iso_8601_are_those_in_seconds(form: str, without_zone: int, ending: str, tmp_path: Path) -> None:
    rows = timed(lambda at: form.format(at))
    interactions, report = load_checked_interactions(write(tmp_path / f"events{ending}", rows))
    plain, _ = load(tmp_path, timed(lambda at: NEW_YEAR + at))
    assert interactions.fingerprint == plain.fingerprint
    found = by_kind(report.findings)
    assert found["times_without_zone"].count == without_zone if without_zone else not found
    if without_zone:
        assert "40 times have no time zone and were read as UTC." in found["times_without_zone"].text


@pytest.mark.parametrize("kind", [pa.timestamp("ms"), pa.timestamp("us", "Asia/Tokyo"), pa.date32()])
def test_times_of_parquet(kind: pa.DataType, tmp_path: Path) -> None:
    days = timed(lambda at: datetime(2026, 1, 1 + at, tzinfo=UTC))
    names = HEADER.replace("value,", "").split(",")
    columns = {name: [row[HEADER.split(",").index(name)] for row in days] for name in names}
    whole = [moment if kind.equals(pa.timestamp("us", "Asia/Tokyo")) else moment.replace(tzinfo=None)
             for moment in columns["time"]]  # fmt: skip
    columns["time"] = pa.array(whole, pa.timestamp("us", getattr(kind, "tz", None))).cast(kind)
    parquet.write_table(pa.table(columns), tmp_path / "events.parquet")
    interactions, report = load_checked_interactions(tmp_path / "events.parquet")
    assert interactions.events.time[:3].tolist() == [NEW_YEAR + 86_400 * at for at in range(3)]
    has_zone = getattr(kind, "tz", None) is not None
    assert ("times_without_zone" in by_kind(report.findings)) is not has_zone


@pytest.mark.parametrize(("unit", "many"), [("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9)])
def test_times_in_another_unit_are_told(unit: str, many: float, tmp_path: Path) -> None:
    interactions, found = load(tmp_path, timed(lambda at: int((NEW_YEAR + at) * many)))
    assert interactions.events.time[:3].tolist() == [NEW_YEAR, NEW_YEAR + 1, NEW_YEAR + 2]
    finding = by_kind(found)["times_in_another_unit"]
    assert (finding.severity, finding.count) == ("warning", 40)
    assert f"were read as {unit} since 1970" in finding.sentence


def test_times_written_in_two_ways_are_named(tmp_path: Path) -> None:
    text, number = "2026-01-01T00:00:00Z", 1_717_000_000
    row = ["u1", "i1", "view", text, "", "Item 1"]
    assert fault(tmp_path, row, row) == (
        "line 42 (and 1 more such lines: 43): the time is a text, and 40 others are numbers. Write all in one way."
    )
    texts = timed(lambda at: text)
    with pytest.raises(DatasetError, match=r"line 42: the time is a number, and 40 others are texts\. Write all"):
        load(tmp_path, [*texts, [*row[:3], number, *row[4:]]])
    seconds = timed(lambda at: number + at)
    with pytest.raises(DatasetError, match=r"line 42: the time is 1717000000000, which counts milliseconds .* and 40"):
        load(tmp_path, [*seconds, [*row[:3], number * 1000, *row[4:]]])


def test_times_that_go_backwards_are_sorted_and_told(tmp_path: Path) -> None:
    interactions, found = load(tmp_path, list(reversed(shop())))
    assert (np.diff(interactions.events.time)[np.diff(interactions.events.user) == 0] >= 0).all()
    finding = by_kind(found)["times_backwards"]
    assert (finding.severity, finding.count) == ("note", 36)
    assert not load(tmp_path, shop())[1]


def test_a_repeated_event_counts_once_and_is_told(tmp_path: Path) -> None:
    plain, _ = load(tmp_path, shop())
    repeated, found = load(tmp_path, [*shop(), shop()[4], shop()[4], shop()[17]])
    assert repeated.fingerprint == plain.fingerprint
    assert by_kind(found)["duplicates"].count == 3
    assert by_kind(found)["duplicates"].examples == ("line 42", "line 43", "line 44")


def test_events_at_one_time_are_no_duplicates(tmp_path: Path) -> None:
    rows = [[row[0], row[1], row[2], 0, *row[4:]] for row in shop()]
    interactions, found = load(tmp_path, rows)
    assert len(interactions.events) == 40
    assert not found


def test_a_view_that_led_to_a_choice_is_no_refusal(tmp_path: Path) -> None:
    rows = [["one", "i1", "view", 1, "", "Item 1"], ["one", "i1", "buy", 2, "", "Item 1"],
            ["one", "i1", "view", 3, "", "Item 1"], ["one", "i2", "view", 4, "", "Item 2"],
            ["two", "i2", "click", 4, "", "Item 2"]]  # fmt: skip
    split = [[*row, "train"] for row in [*shop(), *rows]]
    split += [["u0", "i18", "view", 98, "", "Item 18", "holdout"], ["u0", "i19", "click", 99, "", "Item 19", "holdout"]]
    interactions, found = load(tmp_path, split, HEADER + ",split")
    events = interactions.events
    of_one = events.user == interactions.user_names.index("one")
    assert list(zip(events.time[of_one].tolist(), events.chosen[of_one].tolist(), strict=True)) == [
        (2.0, True), (3.0, False), (4.0, False)
    ]  # fmt: skip
    assert by_kind(found)["views_of_chosen_items"].count == 1


def test_a_view_before_the_split_stays_when_the_choice_is_held_out(tmp_path: Path) -> None:
    rows = [[*row, "holdout" if row[3] > 7 else "train"] for row in shop()]
    rows += [["u0", "i19", "view", 3.5, "", "Item 19", "train"], ["u0", "i19", "buy", 12, "", "Item 19", "holdout"]]
    interactions, found = load(tmp_path, rows, HEADER + ",split")
    assert len(interactions.events) == 42
    assert "views_of_chosen_items" not in by_kind(found)


def test_an_item_with_two_texts_keeps_the_first_and_is_told(tmp_path: Path) -> None:
    interactions, found = load(tmp_path, [*shop(), ["u9", "i3", "view", 1, "", "Another"]])
    assert interactions.texts[interactions.item_names.index("i3")] == "Item 3"
    assert by_kind(found)["item_with_several_texts"].examples == ("'i3' in line 42",)
    items = [[f"i{at}", f"Item {at}", at] for at in range(20)]
    _, report = load_checked_interactions(two_files(tmp_path, [*items, ["i3", "Another", 3]]))
    assert by_kind(report.findings)["item_with_several_texts"].examples == ("'i3' in line 22",)


def test_users_with_one_event_are_learned_from_and_told(tmp_path: Path) -> None:
    interactions, found = load(tmp_path, [*shop(), ["one", "i1", "click", 5, "", "Item 1"]])
    of_one = interactions.events.user == interactions.user_names.index("one")
    assert not interactions.events.holdout[of_one].any()
    assert interactions.events.holdout.sum() == 8
    assert by_kind(found)["users_with_one_event"].sentence == "1 of 5 users have one event."


def test_users_with_one_event_alone_leave_nothing_to_evaluate(tmp_path: Path) -> None:
    rows = [[f"u{at}", f"i{at}", "click" if at % 2 else "view", at, "", f"Item {at}"] for at in range(10)]
    with pytest.raises(DatasetError, match=r"there are no holdout rows\. .* add events of users, or a column 'split'"):
        load(tmp_path, rows)


@pytest.mark.parametrize(("event", "missing"), [("view", "'click', 'like' or 'buy'"), ("buy", "'view' or 'dislike'")])
def test_what_is_missing_among_events_of_one_kind_is_said(event: str, missing: str, tmp_path: Path) -> None:
    """Choices of one user who chose everything leave no item to draw as not chosen."""
    with pytest.raises(DatasetError, match=f"chosen. Add events such as {missing}"):
        load(tmp_path, shop(event, event, users=1, items=10))


def test_one_user_is_told(tmp_path: Path) -> None:
    finding = by_kind(load(tmp_path, shop(users=1))[1])["one_user"]
    assert finding.severity == "warning"


# Only positives


def test_where_only_choices_are_known_others_are_drawn_by_popularity(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = [
        [f"u{user}", f"i{item}", "buy", time, "", f"Item {item}"]
        for user in range(60)
        for time, item in enumerate(rng.choice(60, 10, replace=False, p=np.r_[[0.04] * 10, [0.012] * 50]))
    ]
    interactions, found = load(tmp_path, rows)
    events = interactions.events
    assert (events.sampled == ~events.chosen).all()
    assert events.sampled.sum() == 4 * events.chosen.sum() == 2400
    assert (events.weight[events.sampled] == 1.0).all()
    assert events.holdout[events.sampled].sum() == 4 * events.holdout[events.chosen].sum() == 480
    theirs = defaultdict(set)
    for user, item in zip(events.user[events.chosen].tolist(), events.item[events.chosen].tolist(), strict=True):
        theirs[user].add(item)
    drawn = events.take(events.sampled & ~events.holdout)
    assert all(item not in theirs[user] for user, item in zip(drawn.user.tolist(), drawn.item.tolist(), strict=True))
    trained = np.bincount(events.item[events.chosen & ~events.holdout], minlength=60)
    popular = [at for at, name in enumerate(interactions.item_names) if int(name[1:]) < 10]
    share = np.isin(drawn.item, popular).mean()
    assert 10 / 60 + 0.05 < share < trained[popular].sum() / trained.sum()  # less than in proportion to their counts
    finding = by_kind(found)["negatives_sampled"]
    assert "no event is of an item that was not chosen. 2,400 items stand for such events" in finding.sentence
    assert interactions.notes == (finding.sentence,)
    assert load(tmp_path, rows)[0].fingerprint == interactions.fingerprint


def test_a_few_dislikes_among_choices_do_not_stand_for_the_rest(tmp_path: Path) -> None:
    rows = [*shop("buy", "buy", users=10, items=40), ["u1", "i39", "dislike", 3.5, "", "Item 39"]]
    interactions, found = load(tmp_path, rows)
    assert "only 1 of 101 events are of an item that was not chosen" in by_kind(found)["negatives_sampled"].sentence
    assert not load(tmp_path, shop())[0].events.sampled.any()
    assert (~interactions.events.chosen & ~interactions.events.sampled).sum() == 1


def test_drawn_items_carry_the_moment_of_their_choice(tmp_path: Path) -> None:
    rows = [[*row, row[3] * 2] for row in shop("buy", "buy")]
    interactions, _ = load(tmp_path, rows, HEADER + ",context_hour")
    assert interactions.events.sampled.any()
    assert (interactions.context_features[:, 0] == interactions.events.time * 2).all()


# Features


@pytest.mark.parametrize("column", ["price", "user_age", "context_hour"])
def test_infinite_features_are_named(column: str, tmp_path: Path) -> None:
    header = f"{HEADER},{column}"
    good = ["u1", "i1", "view", 50, "", "Item 1", 2.5]
    assert fault(tmp_path, good, [*good[:6], "inf"], header=header) == (
        f"line 43: {column} is 'inf', which is not finite. Write numbers such as 9.5, or leave the column out."
    )
    assert "is '1e999', which is not finite" in fault(tmp_path, good, [*good[:6], "1e999"], header=header)
    assert "is 'cheap', which is not a number" in fault(tmp_path, good, [*good[:6], "cheap"], header=header)


def test_nan_is_a_missing_feature(tmp_path: Path) -> None:
    rows = [[*row, "nan" if row[1] == "i3" else "" if row[1] == "i4" else 7] for row in shop()]
    interactions, _ = load(tmp_path, rows, HEADER + ",price")
    assert interactions.item_numbers(interactions.item_names.index("i3")) == {}
    assert interactions.item_numbers(interactions.item_names.index("i4")) == {}
    assert interactions.item_numbers(interactions.item_names.index("i5")) == {"price": 7.0}


def test_columns_of_words_are_no_features_and_are_told(tmp_path: Path) -> None:
    rows = [[*row, "garden", 7] for row in shop()]
    interactions, found = load(tmp_path, rows, HEADER + ",category,price")
    assert interactions.item_feature_names == ["price"]
    assert "not read: category." in by_kind(found)["columns_without_numbers"].sentence


def test_json_that_is_no_name_is_named(tmp_path: Path) -> None:
    rows = [json.dumps(dict(zip(HEADER.split(","), row, strict=True))) for row in shop()]
    bad = [
        {"user_id": ["u1"], "item_id": "i1", "event": "view", "time": 1, "text": "Item 1"},
        {"user_id": "u1", "item_id": None, "event": "view", "time": 1, "text": "Item 1"},
        {"user_id": "u1", "item_id": "i1", "event": {"name": "view"}, "time": 1, "text": "Item 1"},
        {"user_id": "u1", "item_id": "i1", "event": "view", "time": [1], "text": "Item 1"},
        {"user_id": "u1", "item_id": "i1", "event": "view", "time": 1, "text": "Item 1", "price": [1]},
        {"user_id": 7, "item_id": 8, "event": "view", "time": 1, "text": "Item 8", "price": 2.5},
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join([*rows, *map(json.dumps, bad)]))
    with pytest.raises(DatasetError) as caught:
        load_interactions(file)
    lines = [line.removeprefix(f"{file}, ").split(": ")[0] for line in str(caught.value).split("\n")]
    assert lines == ["line 41", "line 42", "line 43", "line 44", "line 45"]
    file.write_text("\n".join([*rows, json.dumps(bad[-1])]))
    interactions = load_interactions(file)
    assert "7" in interactions.user_names
    assert "8" in interactions.item_names
